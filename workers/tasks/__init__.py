"""The tasks that come with Handoff; each module here is loaded when a worker starts."""
