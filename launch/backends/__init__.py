"""From a job and a machine to the commands that start its ranks; a file a launcher, all of them pure."""
