"""A Django app with an incident: a bug in one receiver, and a second cause of failures in another one."""
