"""Getting the real systems: Maven, Debian and Go packages by their ordinary clients, kept in a cache directory."""
