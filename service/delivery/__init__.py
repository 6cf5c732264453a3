"""Getting it there: routes, sites, connections, one attempt, and what to do when it fails. Never touches the disk."""
