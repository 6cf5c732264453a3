"""Where a job waits: the store, the drop directory and the result files. Nothing here touches the network."""
