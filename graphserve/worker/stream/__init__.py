"""Streams: items that an API makes, and bodies that it reads while they come.

producer      runs a generator, on the loop or in a thread; each item goes to a `Sink` as soon as it
              is made
request_body  the chunks of a body, as an async iterator that holds the connection back while the
              API is slow
form_body     a form whose file the API reads while it comes: the fields first, then the file
receiving     a request before its API is called: its files are put on disk as they come, or it is
              read up to the file that the API reads itself
"""
