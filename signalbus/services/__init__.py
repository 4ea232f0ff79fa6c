"""Find, explain and change deliveries for people: for the command line, the admin, the web app and code of a host.

`queries` reads, `changes` writes. Here is what both need: who may do it (`actors`), what was done (`audit_log`), which
deliveries (`filters`), failures by their cause with people's notes on them (`groups`), and secrets (`redaction`).
"""
