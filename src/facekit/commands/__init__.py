"""One file per subcommand; each holds the public function of the same name."""
