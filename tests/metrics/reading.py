"""Metrics as who scrapes them reads them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from graphserve.system.rundir.paths import control_socket

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = dict[str, str]


class Metrics:
    """What was scraped: each sample with its labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: list[tuple[str, Labels, float]] = []
        for line in text.splitlines():
            if not line.startswith("#"):
                found = SAMPLE.match(line)
                assert found is not None, line
                self.samples.append(
                    (found[1], dict(LABEL.findall(found[2] or "")), float(found[3]))
                )

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels."""
        return sum(
            value
            for each, found, value in self.samples
            if each == name and labels.items() <= found.items()
        )

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The same, by the value of another label; those that are 0 are left out."""
        values = {found[label] for each, found, _ in self.samples if each == name}
        sums = {value: self.total(name, **{label: value}, **labels) for value in values}
        return {value: number for value, number in sums.items() if number}


def scrape(run_dir: Path, accept: str = "") -> Metrics:
    """What a running graph has counted."""
    return Metrics(answer(run_dir, accept).text)


def answer(run_dir: Path, accept: str = "") -> httpx.Response:
    """The answer to who scrapes a running graph."""
    transport = httpx.HTTPTransport(uds=control_socket(run_dir))
    with httpx.Client(transport=transport, timeout=60) as client:
        headers = {"accept": accept} if accept else {}
        return client.get("http://graph/metrics", headers=headers).raise_for_status()
