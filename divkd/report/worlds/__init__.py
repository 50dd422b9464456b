"""Reports of the theory's opposite worlds, a module a world: its REPORT names its command."""
