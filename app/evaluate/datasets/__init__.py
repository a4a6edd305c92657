"""The benchmarks of the field: 3DPW and EMDB, read as they are published.

`run.evaluate_dataset` measures the app on a dataset's sequences; `threedpw` and `emdb` read the two
formats into `sequence.DatasetSequence`; `scores` computes the errors and `rows` the figures.
"""
