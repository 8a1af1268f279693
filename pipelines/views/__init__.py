"""What people see of a study: report, text, console."""
