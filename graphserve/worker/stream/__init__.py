"""Streams: items that an API makes, and bodies that it reads while they come.

producer      runs a generator, on the loop or in a thread; each item goes to a `Sink` as soon as it
              is made
request_body  the chunks of a body, as an async iterator that holds the connection back while the
              API is slow
receiving     a request whose files are put on disk as they come, before its API is called
"""
