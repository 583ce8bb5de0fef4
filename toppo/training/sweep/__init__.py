"""Many runs from one file: the plan, the processes that train them, and what a person sees of it."""
