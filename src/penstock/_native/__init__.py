"""The native floor: encoding, parsing, mapped files, locks. Private; use the names that `penstock` exports."""
