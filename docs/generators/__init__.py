"""What writes files of this repository from the project: metrics, the lineage picture, the list of what is not portable."""
