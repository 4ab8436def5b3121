"""The stages in pipeline order: revise, train_sft, sample, label, train_reward, train_policy, evaluate.

Each reads files and writes files, says which in its header, and returns a summary.
"""
