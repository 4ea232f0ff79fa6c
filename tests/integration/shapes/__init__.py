"""An app of models of every shape: what is fetched of them must be what Django's ORM fetches."""
