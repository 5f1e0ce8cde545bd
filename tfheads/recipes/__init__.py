"""What the scripts in training/ do: arguments from YAML and the command line, and one call for each task."""
