"""What `import mixopt` gives for reading: trials, their model, figures. It trains nothing."""
