"""The models: networks and losses."""
