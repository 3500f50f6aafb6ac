"""The paper's finding at a size that can be trained: plan, run and resume a whole study.

A study is a folder. Everything in it is what other commands write: training runs, results, a
comparison; so each part can be opened, analysed and repeated on its own.
"""
