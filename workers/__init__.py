"""The workers' side: what runs the tasks. Import `task`, `progress` and `current` from here to write your own."""
