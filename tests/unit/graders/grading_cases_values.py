r"""Cases of named and listed solutions, exact quantities, intervals, formulas, hedges; see ``grading_cases``."""

from grading_case import Case, boxed

NAMED = boxed(
    "math",
    {},
    r"""
    x = 1 \text{ or } x = 2 | 1, 2 | yes | values with a name
    x = 1, x = 2 | 1, 2 | yes | values with a name
    x_1 = 1, x_2 = 2 | 1, 2 | yes | values with a name
    x_1 = 2, x_2 = 1 | (1, 2) | no | another name, order or value
    (x, y) = (5, 8) | (5, 8) | yes | values with a name
    (y, x) = (5, 8) | (5, 8) | no | another name, order or value
    (x,y) = (5,8) \text{ and } (8,5) | (5,8), (8,5) | yes | values with a name
    (5,8) | (x,y) = (5,8) | yes | values with a name
    (x,y)=(5,8) | x=5, y=8 | yes | values with a name
    x = 1, y = 2, z = 3 | 1, 2, 3 | yes | values with a name
    y = 1, x = 2 | 1, 2 | no | another name, order or value
    y = 2, x = 1 | x=1, y=2 | yes | values with a name
    2 = x | 2 | yes | values with a name
    y=\ln x | \ln x | yes | values with a name
    \ln x | y = \ln x | yes | values with a name
    W=mgh | mgh | yes | values with a name
    mgh | W=mgh | yes | values with a name
    x=e | e | yes | values with a name
    \int_0^1 2x\,dx = 1 | 1 | yes | values with a name
    \sum_{k=1}^{10} k = 55 | 55 | yes | values with a name
    \sum_{k=1}^{10} k = 56 | 55 | no | another name, order or value
    \prod_{k=1}^{3} k = 6 | 6 | yes | values with a name
    \lim_{x \to 0} \frac{\sin x}{x} = 1 | 1 | yes | values with a name
    f(x) = 2x + 3 | y = 2x + 3 | yes | values with a name
    g(x) = 2x + 4 | y = 2x + 3 | no | another name, order or value
    y'+ry=0 | y^{\prime}+r y-r x(t)=0 | no | another name, order or value
    y^{\prime}+ry=rx(t) | y^{\prime}+r y-r x(t)=0 | yes | values with a name
    x^2+y^2=4 | y^2 = 4 - x^2 | yes | values with a name
    A = B | B | no | another name, order or value
    x = 1, y = 2 \text{ or } x = 2, y = 1 | (1,2),(2,1) | yes | values with a name
    \frac{dy}{dx} = 2x | 2x | yes | values with a name
    x=\frac{1}{2}, y=3 | (\frac12, 3) | yes | values with a name
    x = 1, 2 | 1, 2 | yes | one name for all
    x = 1, x = 3 | 1, 2 | no | another solution
    x = 1, x = 2 | (1,2) | no | solutions are no point
    n = 1, n = 2 | x = 1, x = 2 | no | another name
    (x,y) = (8,5) | (5,8) | no | order
    z = 1, y = 2, x = 3 | 1, 2, 3 | no | names out of order
    3 = 6 | 6 | no | a false statement
    6 = 5 | 5 | no | a false statement
    ab = mgh | mgh | no | a product is no name
    e = \pi | \pi | no | a constant is no name
    V = mgh | W=mgh | no | another name
    y \in 5 | 5 | no | not a set
    """,
)

QUANTITIES = boxed(
    "math",
    {},
    r"""
    2.\overline{3} | \frac{7}{3} | yes | the same quantity
    2.3 | \frac{7}{3} | no | close, or juxtaposed
    \frac{7}{3} | 2.\overline{3} | yes | the same quantity
    0.1\overline{6} | 1/6 | yes | the same quantity
    S_1 : S = 7:32 | 7:32 | yes | the same quantity
    7:32 | S_1 : S = 7:32 | yes | the same quantity
    1-\frac{1}{2^{100}} | 1-\frac{1}{2^{99}} | no | close, or juxtaposed
    1-\frac{1}{2^{100}} | 1-2^{-100} | yes | the same quantity
    (2/3)^{2023} | (2/3)^{2024} | no | close, or juxtaposed
    \frac{2^{2023}}{3^{2023}} | (2/3)^{2023} | yes | the same quantity
    \frac1{2006!} | \frac1{2004!} | no | close, or juxtaposed
    2^{2024}-1 | -1+2^{2024} | yes | the same quantity
    2025\cdot 2024! | 2025! | yes | the same quantity
    2024! | 2025! | no | close, or juxtaposed
    35 2 | 37 | no | close, or juxtaposed
    10 20 30 | 60 | no | close, or juxtaposed
    16,3,1 | 16,3,1,1 | no | close, or juxtaposed
    16,1,3,1 | 16,3,1,1 | yes | the same quantity
    4:6 | 2:3 | yes | the same quantity
    1,000, 2,000 | 1000, 2000 | yes | the same quantity
    5 \text{ dozen} | 5 | no | a dozen is no unit
    5\text{ squared} | 5 | no | squared is no unit
    35 2 | 35 2 | yes | literal
    2^{100}+\epsilon | 2^{100} | no | nothing hides behind a large number
    10^{-30} | 10^{-31} | no | tiny
    \sqrt{2}+10^{-200} | \sqrt{2} | no | a difference in the two hundredth digit
    \infty 6 | \infty | no | nothing hides behind infinity
    0 \quad y | 0 | no | nothing hides behind zero
    y'' | y' | no | another derivative
    5' | 5 | no | a prime
    I^2 | -1 | no | I is no imaginary unit
    """,
)

REGIONS = boxed(
    "math",
    {},
    r"""
    x>5 | (5,\infty) | yes | the same set of numbers
    x \ge 5 | (5,\infty) | no | another end, sign or direction
    5 < x | (5,\infty) | yes | the same set of numbers
    1 < x \le 2 | (1,2] | yes | the same set of numbers
    2 \ge x > 1 | (1,2] | yes | the same set of numbers
    -5 \le x \le 1 \text{ or } 3 \le x \le 9 | [-5,1] \cup [3,9] | yes | the same set of numbers
    x < 1 \text{ or } x > 2 | (-\infty,1)\cup(2,\infty) | yes | the same set of numbers
    x \ne 3 | (-\infty,3)\cup(3,\infty) | yes | the same set of numbers
    \mathbb{R} \setminus \{3\} | x \neq 3 | yes | the same set of numbers
    [2^{1/2^{1000}}, \infty) | [2,\infty) | no | another end, sign or direction
    [0, 1) \cup (2,3] | [0,1) \cup (2,3) | no | another end, sign or direction
    \{x \mid x > 3\} | (3,\infty) | yes | the same set of numbers
    x \in (3,\infty) | x > 3 | yes | the same set of numbers
    a<b | b>a | yes | the same set of numbers
    a<b | a>b | no | another end, sign or direction
    2x>6 | x>3 | yes | the same set of numbers
    2x>6 | x<3 | no | another end, sign or direction
    x > 5 | 5 | no | an inequality is no number
    x > 1 \text{ and } x < 3 | (1,3) | yes | both conditions
    x > 1 \text{ or } x < 3 | (1,3) | no | either condition
    5 \le x | (-\infty,5] | no | the other direction
    y > 5 | x > 5 | no | another variable
    x \ne 3 | 3 | no | everything but the answer
    \mathbb{R} | (-\infty,\infty) | yes | all real numbers
    [0,1) \cup [1,2] | [0,2] | no | a union in two pieces
    """,
)

FORMS = boxed(
    "math",
    {},
    r"""
    -q+p | p - q | yes | the same formula
    q-p | p - q | no | another formula
    a\cdot b\cdot c | abc | yes | the same formula
    E_0 + 1 | 1+E_{0} | yes | the same formula
    E_1 | E_2 | no | another formula
    -\frac12i | -\frac{1}{2}i | yes | the same formula
    \frac{1\pm\sqrt5}{2} | \frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2} | yes | the same formula
    \frac{1-\sqrt5}{2}, \frac{1+\sqrt5}{2} | \frac{1\pm\sqrt5}{2} | yes | the same formula
    1+2i | i(2-i) | yes | the same formula
    1-2i | i(2-i) | no | another formula
    \frac34i | \frac{3}{4}i | yes | the same formula
    ¦x¦ + y | Abs(x)+y | yes | the same formula
    \sin(90^\circ-x) | \cos x | yes | the same formula
    \frac{1}{2} \approx 0.5 | \frac{1}{2} | no | another formula
    (5,5) | (7,7) | no | another formula
    \{(1,2)\} | (1,2) | yes | the same formula
    \begin{pmatrix}1&-2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix} | no | another formula
    \sqrt{x^2} | x | no | another formula
    10 \text{ cm}, 20 \text{ cm} | 10, 20 | yes | the same formula
    \frac{-1}{x} | -\frac{1}{x} | yes | the same formula
    e^{-x} | \frac{1}{e^x} | yes | the same formula
    """,
)

JOINS = (
    r"\approx", r"\sim", r"\simeq", r"\cong", r"\to", r"\rightarrow", r"\Rightarrow", r"\implies", r"\iff", ";", ",",
    r"\text{ or }", r"\text{ and }", "or", r"\quad", "\\\\", r"\lor", "|", r"\mid", r"\ne", "<", r"\le", ">", "=",
    r"\equiv", ":", "...", r"\ldots", r"\cdots", "?", r"\text{ but }", r"\text{ (or) }", "vs", r"\&", r"\cup", r"\pm",
    r"\in", r"\propto", "->", "=>", "~", r"\overset{a}{=}", "≈", "→", "⇒", "∨", "≡", "…", r"\text{ i.e. }",
    r"\text{ not }", "\n",
)  # fmt: skip
HEDGES: list[Case] = [
    ("math", rf"So \boxed{{{first} {join} {second}}}.", "5", {}, False, f"hedged by {join!r}")
    for join in JOINS
    for first, second in (("5", "6"), ("6", "5"))
] + boxed(
    "math",
    {},
    r"""
    5\ldots | 5 | no | cut off
    5... | 5 | no | cut off
    5:1 | 5 | no | a ratio
    \approx 5 | 5 | no | about
    \ge 5 | 5 | no | at least
    5 \text{ or so} | 5 | no | about
    \text{about } 5 | 5 | no | about
    \{5, 6\} | 5 | no | a set of two
    5 (6) | 5 | no | a product, or a second answer
    5_{6} | 5 | no | an index
    \cancel{6} 5 | 5 | no | crossed out
    5\phantom{6} | 5 | no | invisible
    \sqrt{2} \approx 1.414 | \sqrt{2} | no | two answers, though both right
    3 \approx 4 | 3 \approx 4 | yes | the truth says so itself
    """,
)
BOXES: list[Case] = [
    ("math", r"\boxed{\boxed{1, 3}}", "1,3", {}, True, "a box in a box is one answer"),
    ("math", r"Solutions: \boxed{1} and \boxed{3}", "1,3", {}, True, "several boxes"),
    ("math", r"$x = \boxed{1}$ or $x = \boxed{3}$.", "1,3", {}, True, "several named boxes"),
    ("math", r"$\boxed{(2,2)}$, $\boxed{(6,2)}$", "(2,2), (6,2)", {}, True, "several boxes with points"),
    ("math", r"First \boxed{1}, no: \boxed{3}", "1,3", {}, False, "a correction"),
    ("math", "\\boxed{1}\n\n\\boxed{3}", "1,3", {}, False, "boxes of two paragraphs"),
    ("math", r"\boxed{1}, \boxed{3}, \boxed{5}", "1,3", {}, False, "a box too many"),
    ("math", r"\boxed{1} or \boxed{4}", "1,3", {}, False, "another value"),
    ("math", r"\boxed{3} or \boxed{1}", "3", {}, False, "two boxes for one answer: the last counts"),
    ("math", r"\boxed{1}, \boxed{3}", "(1,3)", {}, False, "two boxes are no pair"),
    ("math", r"$y = \boxed{1}$, $x = \boxed{3}$", "1,3", {}, False, "names out of order"),
]
MORE: list[Case] = [*NAMED, *QUANTITIES, *REGIONS, *FORMS, *HEDGES, *BOXES]
