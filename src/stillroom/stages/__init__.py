"""What each line of flow.py does: one file a stage, each reading finished folders and writing one."""
