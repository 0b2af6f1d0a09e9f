"""The benchmark: tasks, baselines, scores with their intervals, tables, pictures."""
