"""The training loop that every network here shares; it knows nothing of pictures.

recipe.py                  how to descend, and for how long (no torch)
step.py                    one step: loss, backward, clip, step, average
loop.py                    from a start or a checkpoint to the next stop
replicas.py                threads that share a batch
distributed.py             the device, the precision, and the processes that share a step
ema.py                     the moving average of weights
state.py                   checkpoints
metrics.py                 `metrics.jsonl`
rng.py                     generators that begin anew for every purpose and step
gradient_checkpointing.py  memory for time
"""
