"""Stratum's logic: everything a DAG task or the command line calls."""
