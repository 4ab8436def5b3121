"""What each link of the proxy chain lost: true goal, constitution, labeler, reward model, policy. Reads artifacts alone."""
