"""Train the checkpoints that are compared: one engine for every objective.

A run is a function of its configuration: weights, data order, crops, masks and every other
draw come from the seed and from the number of the update, so that an interrupted run goes on
as if nothing had happened, on any number of worker processes.
"""
