"""From a picture or a video and speech to a finished file: what is read, what is put back where, and what the file says.

`generate` is the whole of it; `speech` and `recording` are read as they are needed, `paste` puts faces back, `named_adapters` finds and
blends adapters, `jobs` makes many files, `page` is the local page.
"""
