"""An app of models of every shape: rows must be loaded as Django's ORM loads them."""
