"""Studies: runnable files, one phenomenon each. Imported as `landscape.studies`."""
