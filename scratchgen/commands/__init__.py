"""The commands, a module for each group: functions of the parsed options that return the exit status."""
