"""Trained nets behind a web address: a service for programs, and a page for people."""
