"""The command line: it parses, calls and prints; no science lives here."""
