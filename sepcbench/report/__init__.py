"""Tables and plots, drawn from records alone: nothing here measures or needs torch."""
