"""A translator that answers over HTTP: a page for people, JSON for programs.

`requests` says what may be asked, which waits in `batching` and is answered by all ranks together (`turns`, `answers`);
`app` has the routes, `server` the socket and the signals.
"""
