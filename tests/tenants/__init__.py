"""A project with a schema for each tenant (django-tenants), whose receiver notes the schema that it ran in."""
