"""Answers a second of the grader, beside verl's own; ``--help`` lists the options."""

from recipe.critique_grpo.bench.grader import main

if __name__ == "__main__":
    main()
