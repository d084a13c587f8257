"""What training changes: everything, or parameters chosen by name."""
