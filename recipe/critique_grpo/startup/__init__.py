"""Everything that is refused before Ray starts: versions, configuration, endpoints, data."""
