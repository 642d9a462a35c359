"""What command lines share, those of yaie and of the packages around it: types of options, and
errors told in one sentence."""
