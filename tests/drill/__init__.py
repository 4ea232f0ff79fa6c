"""The drill: incidents in a shop, each handled with the commands of ``manage.py signalbus`` alone."""
