"""The sessions of nox: what runs before a change goes in.

`nox -s tests` is all that a fresh clone needs.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
# Tests start real processes and mostly wait for them: six at once keep two cores busy. The tests of
# a file share what they started. Files go out in the order of their names: by the number of tests,
# those that wait longest would come last.
SIDE_BY_SIDE = ("-n", "6", "--dist", "loadfile", "--no-loadscope-reorder")

nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = False


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests but for the slow ones, under the Python that runs nox; arguments after `--` go
    to pytest.
    """
    _test(session)


@nox.session
def tests_slow(session: nox.Session) -> None:
    """Run the slow tests: more reloads, fallback servers, shortages, browsers; arguments go to
    pytest.
    """
    _test(session, "-n", "4", "-m", "slow")  # each of these keeps more processes busy


@nox.session(python=PYTHONS)
def tests_all(session: nox.Session) -> None:
    """Run all tests, under every supported Python that this machine has."""
    _test(session, "-m", "slow or not slow")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Run both type checkers over the package, and over what users see of it."""
    session.install("-e", ".[test]")
    session.run("mypy")
    session.run("basedpyright")
    session.run("pytest", "-m", "slow", "tests/test_typing.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Run every code block of README.md and docs/, as the page has it."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slow or not slow", "tests/test_docs.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send mutated requests, and bodies that may cost too much, to a real public port; arguments go
    to pytest.

    These are many more than the tests send. It prints how the requests to every door were answered,
    and what the worst bodies of each size cost.
    """
    session.install("-e", ".[test]")
    session.run(
        "pytest", "tests/hostile/test_fuzz.py", *session.posargs, env={"FUZZ_EXAMPLES": "5000"}
    )
    session.run(
        "pytest",
        "-s",
        "tests/hostile/test_doors.py",
        *session.posargs,
        env={"FUZZ_EXAMPLES": "5000"},
    )
    session.run(
        "pytest",
        "-s",
        "tests/hostile/test_cost.py",
        *session.posargs,
        env={"COST_EXAMPLES": "3000"},
    )


@nox.session
def schemathesis(session: nox.Session) -> None:
    """Run schemathesis against the document of every example, longer than the tests do; arguments
    go to pytest.
    """
    session.install("-e", ".[test]")
    env = {"SCHEMATHESIS_EXAMPLES": "200"}
    session.run(
        "pytest", "-m", "slow", "tests/hostile/test_schemathesis.py", *session.posargs, env=env
    )


@nox.session
def clients(session: nox.Session) -> None:
    """Test clients generated from the document of every example, and of a service with an API of
    each kind, by openapi-python-client, openapi-typescript and Hey API.
    """
    session.install("-e", ".[test]", "openapi-python-client>=0.29")
    session.run("pytest", "tests/examples/test_clients.py", *session.posargs)


@nox.session
def beside(session: nox.Session) -> None:
    """Send the same bytes to graphserve and to FastAPI, and write a page of the differences."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.measuring.beside")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers, and write docs/benchmarks.md.

    `-- --quick --peers mosec` is a short run.
    """
    session.install("-e", ".[test]")
    page = [] if session.posargs else ["--page", "docs/benchmarks.md"]
    session.run("python", "-m", "tests.benchmarks", *page, *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Inject faults under load, and write docs/faults.md.

    `-- --faults reload,stop --seconds 9` is a short run.
    """
    session.install("-e", ".[test]")
    page = [] if session.posargs else ["--page", "docs/faults.md"]
    session.run("python", "-m", "tests.faults", *page, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Load a graph for ten minutes, with deaths and reloads: memory stays flat.

    `-- --minutes 2` is shorter.
    """
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.faults.soak", *session.posargs)


@nox.session
def house(session: nox.Session) -> None:
    """Draw the house into CONTRIBUTING.md and print its figures; `-- httpx starlette`: beside those
    of others.
    """
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.measuring.house", *session.posargs)


def _test(session: nox.Session, *which: str) -> None:
    session.install("-e", ".[test]")
    # Else each process that the tests start compiles the package anew, where this is set.
    env = {"PYTHONDONTWRITEBYTECODE": None}
    session.run("pytest", *SIDE_BY_SIDE, *which, *session.posargs, env=env)
