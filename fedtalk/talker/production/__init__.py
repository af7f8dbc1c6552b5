"""From a picture or a video and speech to a finished file: what is read, what is put back where, and what the file says.

`generate` is the whole of it and gives a `film`, `files` writes one or many. `speech`, `portrait` and `recording` are what is
read, `streams` makes frames of them, `paste` puts faces back, `named_adapters` finds and blends adapters, `jobs` is a table of
many, `page` the local page.
"""
