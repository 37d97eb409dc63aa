r"""Hand-written grading cases: (kind, response, gold, extra_info, expected, why). What is expected is a careful human's
verdict, with the conventions of ``graders/mathematics.py`` where people would argue. A kind may carry options of
compute_score after a plus sign: ``math+final_expression``.
"""

from grading_case import Case, boxed
from grading_cases_values import MORE

NUMBERS = boxed(
    "math",
    {},
    r"""
    42 | 42 | yes | literal
    43 | 42 | no | another number
    -7 | 7 | no | sign
    +7 | 7 | yes | explicit sign
    −7 | -7 | yes | unicode minus
    – 7 | -7 | yes | dash for minus
    073 | 73 | yes | leading zero
    73 | 073 | yes | AIME style truth
    11 | 11.0 | yes | AMC style truth
    5. | 5 | yes | end of sentence
    .5 | 0.5 | yes | no leading zero
    0.50 | 1/2 | yes | trailing zero
    \frac{1}{2} | 0.5 | yes | fraction for decimal
    \frac12 | 0.5 | yes | fraction without braces
    \frac 34 | \dfrac{3}{4} | yes | fraction without braces, spaced
    \tfrac{2}{4} | \frac{1}{2} | yes | not in lowest terms
    ½ | \frac{1}{2} | yes | unicode fraction
    -\frac{3}{8} | \frac{-3}{8} | yes | where the sign stands
    \frac{8}{3} | \frac{3}{8} | no | upside down
    0.33 | \frac{1}{3} | no | two digits are no third
    0.333333 | \frac{1}{3} | yes | rounded correctly to six digits
    0.333334 | \frac{1}{3} | no | rounded wrongly
    3.14 | \pi | no | not exact
    3.0000001 | 3 | no | close but different
    2\frac{1}{2} | 2.5 | yes | mixed number
    2 1/2 | \frac{5}{2} | yes | mixed number in plain text
    2\frac{1}{2} | 1 | no | not a product
    -1\frac{1}{4} | -1.25 | yes | negative mixed number
    1,000 | 1000 | yes | comma for thousands
    1000 | 1,000 | yes | the other way round
    1{,}000{,}000 | 1000000 | yes | LaTeX commas
    1 000 | 1000 | yes | space for thousands
    10\,000 | 10000 | yes | thin space for thousands
    11,\! 111,\! 111,\! 100 | 11111111100 | yes | MATH style
    1,00 | 100 | no | not a thousands group
    12,5 | 125 | no | two numbers or a decimal comma, not 125
    58,501 | 58,500 | no | last digit
    1 2 | 12 | no | two digits are not a number
    1e11 | 10^{11} | yes | scientific notation
    1.0 \times 10^{11} | 1e11 | yes | scientific notation in LaTeX
    10^{12} | 1e11 | no | wrong power
    3.89 \times 10^{-10} | 3.89e-10 | yes | small number
    3.3e-10 | 3.89e-10 | no | small numbers are not all zero
    0.0000002 | 0.0000001 | no | small numbers are not all zero
    0 | 1e-7 | no | small is not zero
    1e-5 | e-5 | no | not Euler's number less five
    2^{10} | 1024 | yes | power
    2^{1009} | 2^{1010} | no | large powers
    5 \text{ million} | 5000000 | yes | a scale
    5 \text{ million} | 5 | no | a scale is no unit
    7 \cdot 6 | 42 | yes | product
    5! | 120 | yes | factorial
    5! | 5 | no | factorial
    ¦-3¦ | 3 | yes | absolute value
    """,
)

ROOTS_AND_FORMULAS = boxed(
    "math",
    {},
    r"""
    √2 | \sqrt{2} | yes | unicode root
    3√5 | 3\sqrt{5} | yes | unicode root with factor
    √(10) | \sqrt{10} | yes | unicode root with parentheses
    sqrt(2) | \sqrt{2} | yes | root as in code
    \sqrt2 | \sqrt{2} | yes | root without braces
    \sqrt{1944} | $18 \sqrt{6}$ | yes | simplified root
    \frac{1}{\sqrt{3}} | \frac{\sqrt{3}}{3} | yes | rationalised
    \frac{\sqrt{3}}{2} | \frac{\sqrt{3}}{3} | no | another fraction
    1.414214 | \sqrt{2} | yes | rounded to seven digits
    1.41 | \sqrt{2} | no | rounded to three digits
    11(1+\sqrt{5}) | 11 \sqrt{5} + 11 | yes | factored
    2π | 2\pi | yes | unicode pi
    548\pi | $548 \pi$ | yes | dollars in the truth
    \frac{2\pi}{4} | \frac{\pi}{2} | yes | not in lowest terms
    7i-2 | -2 + 7i | yes | order of a complex number
    2+7i | -2 + 7i | no | sign of a complex number
    (x-1)(x+1) | x^2-1 | yes | factored
    x^2+1 | x^2-1 | no | sign in a polynomial
    x² - 1 | x^2-1 | yes | unicode square
    2+2k | 2k+2 | yes | order of terms
    2n+2 | 2k+2 | no | another variable
    ba | ab | yes | order of factors
    X | x | no | case of a variable
    M | m | no | case of a variable
    5t | 5 | no | a factor is not a unit
    2h | 2 | no | a factor is not a unit
    \log_{10} 100 | 2 | yes | logarithm
    \ln 2 | \log_2 3 | no | different logarithms
    \sin^2 x + \cos^2 x | 1 | yes | identity
    2\sin x\cos x | \sin(2x) | yes | identity
    \frac{1}{L C s^{2}+R C s+1} | \frac{1}{1+RCs+LCs^{2}} | yes | rational function
    \frac{1}{b-a}(e^{-at}-e^{-bt}) | \frac{e^{-at}-e^{-bt}}{b-a} | yes | exponentials
    x**2 | x^2 | yes | power as in code
    \binom{5}{2} | 10 | yes | binomial coefficient
    \lfloor 7/2 \rfloor | 3 | yes | floor
    \frac{2}{3} | \frac{1}{3} E_{1}+\frac{2}{3} E_{2} | no | a part of the truth
    """,
)

UNITS = boxed(
    "math",
    {},
    r"""
    5 \text{ cm} | 5 | yes | unit left out of the truth
    5 | 5 \text{ cm} | yes | unit left out of the answer
    5\,\mathrm{cm} | 5 \text{ cm} | yes | another spelling
    5 cm | 5 \text{ centimeters} | yes | abbreviation
    5 \text{ m} | 5 \text{ cm} | no | another unit
    5 \text{ cm}^2 | 5 \text{ square centimeters} | yes | area
    5 \text{ cm}^2 | 5 \text{ cm} | no | area is no length
    12 \text{ apples} | 12 | yes | what is counted
    12 apples | 12 | yes | without \text
    13 \text{ apples} | 12 | no | unit does not rescue a number
    \$10 | 10 | yes | currency
    10 \text{ dollars} | \$10 | yes | currency in words
    10 \text{ cents} | \$10 | no | another currency
    120^\circ | 120 | yes | degrees left out
    120 | 120^{\circ} | yes | degrees left out
    120° | 120^\circ | yes | unicode degree
    120 \text{ degrees} | 120^\circ | yes | degrees in words
    \frac{2\pi}{3} | 120^\circ | no | asked for in degrees
    12 \text{ or } 13 | 12 | no | two answers
    12 \text{ or so} | 12 | no | hedged
    62.5\% | 62.5% | yes | escaped percent
    62.5 | 62.5% | yes | percent left out
    0.625 | 62.5\% | yes | percent as a fraction of one
    50\% | 50 | yes | asked for in percent
    50\% | 0.5 | no | a bare truth of 0.5 may mean 0.5 percent
    5 \text{ percent} | 5\% | yes | percent in words
    6.25\% | 62.5\% | no | another percentage
    """,
)

SETS_AND_TUPLES = boxed(
    "math",
    {},
    r"""
    \{2,1\} | \{1,2\} | yes | order of a set
    \{1,2,3\} | \{1,2\} | no | superset
    \left\{ 2, 1 \right\} | \{1, 2\} | yes | sized braces
    5, 3, 1 | 1,3,5 | yes | a list of solutions in any order
    1, 3 | 1,3,5 | no | a solution is missing
    1, 3, 5, 7 | 1,3,5 | no | a solution too many
    1 \text{ and } 3 | 1,3 | yes | and for a comma
    1, 2 | \{1,2\} | yes | bare set
    (1,2) | (1, 2) | yes | spaces
    (2,1) | (1,2) | no | order of a pair
    \{1,2\} | (1,2) | no | a set is no pair
    (1,2) | \{1,2\} | no | a pair is no set
    1,2 | (1,2) | yes | pair without parentheses
    2,1 | (1,2) | no | pair without parentheses, order
    (7,4) | 7,4 | yes | parentheses around a bare truth
    (3,4,3),(2,2,2) | $(2,2,2),(3,4,3)$ | yes | order of solutions
    (2,2,2) | $(2,2,2),(3,4,3)$ | no | one of two solutions
    (\frac{1}{2}, 0.25) | (0.5, \frac{1}{4}) | yes | items of a pair
    (3, \frac{\pi}{2}) | \left( 3, \frac{\pi}{2} \right) | yes | polar coordinates
    3 \pm 2\sqrt{2} | 3+2\sqrt{2}, 3-2\sqrt{2} | yes | plus or minus
    3 + 2\sqrt{2} | 3 \pm 2 \sqrt{2} | no | half of plus or minus
    \pm 3 | 3 | no | one sign too many
    \emptyset | \{\} | yes | empty set
    0 | \emptyset | no | zero is not the empty set
    10^{1/100}, 10^{100} | $10^{100}$,$10^{1 / 100}$ | yes | dollars around every item
    [0,1] | (0,1) | no | closed or open
    (0,1] | (0,1) | no | half open
    \left[0, 1\right) | [0,1) | yes | sized brackets
    (-\infty, 2] | (-\infty,2] | yes | spaces
    (-∞, 2] | (-\infty,2] | yes | unicode infinity
    (-\infty, 2) | (-\infty,2] | no | the end point
    (2,\infty) \cup (-\infty,1) | (-\infty,1)\cup(2,\infty) | yes | order of a union
    (-\infty,1) ∪ (2,\infty) | (-\infty,1)\cup(2,\infty) | yes | unicode union
    (-\infty,1) | (-\infty,1)\cup(2,\infty) | no | half of a union
    x \in [0,1) | [0,1) | yes | membership
    [3,\infty) | x \ge 3 | yes | interval for inequality
    3 < x | x > 3 | yes | turned round
    x \geq 3 | x > 3 | no | strict or not
    \begin{bmatrix}1&2\\3&4\end{bmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix} | yes | brackets of a matrix
    \begin{pmatrix}1&3\\2&4\end{pmatrix} | \begin{pmatrix}1&2\\3&4\end{pmatrix} | no | transposed
    \begin{pmatrix} -18 \\ -49 \end{pmatrix} | \begin{pmatrix}-18\\-49\end{pmatrix} | yes | column vector
    \begin{pmatrix} 1 & 2 \end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix} | no | row for column
    \begin{pmatrix}\frac{1}{2}\\0\end{pmatrix} | \begin{pmatrix}0.5\\0\end{pmatrix} | yes | entries
    2:3 | 2/3 | yes | ratio
    3:2 | 2:3 | no | ratio turned round
    4:30 | 4:30 | yes | time of day
    1:15 | 3:45 | no | a time is not a ratio
    """,
)

EQUATIONS_BASES_WORDS = boxed(
    "math",
    {},
    r"""
    x = 3 | 3 | yes | named
    3 | k=3 | yes | name left out
    k = 3 | k=4 | no | another value
    n = 3 | k=3 | no | another variable
    1=2 | 2 | no | a false statement
    2+2=4 | 4 | yes | a true statement
    x + 1 = 4 | 4 | no | x is not 4
    x^2 = 7 | 7 | no | x is not 7
    2x = 6 | 6 | no | x is not 6
    m+n = 7 | 7 | yes | the sum asked for
    y' + ry - rx(t) = 0 | 0 | no | a differential equation is no zero
    y^{\prime}+r y-r x(t)=0 | 0.0 | no | the same, as in Minerva
    f(2) = 5 | 5 | yes | value of a function
    P(A \cap B) = \frac{1}{6} | 1/6 | yes | a probability
    x = \frac{1}{2} = 0.5 | 0.5 | yes | a chain
    x = \frac{1}{2} = 0.6 | 0.6 | no | a false chain
    f(x)=x | f(x)=2x | no | another function
    f(x)=n x | f(x)=xn | yes | order of factors
    2x+1 | y=2x+1 | yes | name left out
    2x - y + 1 = 0 | y = 2x+1 | yes | a line in another form
    y = 2x + 2 | y = 2x+1 | no | another line
    204_5 | 204_{5} | yes | base with braces
    204 | 204_5 | no | base left out
    54 | 204_5 | no | asked for in base five
    204_{\text{five}} | 204_5 | yes | base in words
    204_6 | 204_5 | no | another base
    204_{10} | 204 | yes | base ten
    204_5 | 204 | no | a base too many
    Tuesday | \text{Tuesday} | yes | text
    \text{tuesday} | Tuesday | yes | case of a word
    \textbf{Tuesday} | Tuesday | yes | bold
    \text{Thursday} | Tuesday | no | another day
    east | seat | no | an anagram
    \text{act} | cat | no | a short anagram
    an ellipse | \text{ellipse} | yes | article
    \text{parabola} | \text{ellipse} | no | another word
    \text{not an ellipse} | \text{ellipse} | no | negated
    Maria Smith | Maria  Smith | yes | spaces
    LRAC = SRAC | SRAC=LRAC | yes | sides of an equation in words
    SRAC = RALC | SRAC=LRAC | no | letters of a word are no factors
    (E) | \text{(E)} | yes | letter of an option as a formula
    D | \text{(E)} | no | another letter
    I do not know, maybe 42 or not | 42 | no | no answer
    ? | 42 | no | no answer
    """,
)

RESPONSES: list[Case] = [
    ("math", r"First \boxed{1}, no: \boxed{2}", "2", {}, True, "the last of several boxes"),
    ("math", r"First \boxed{2}, no: \boxed{1}", "2", {}, False, "an earlier box does not count"),
    ("math", r"\boxed{x = \boxed{5}}", "5", {}, True, "a box in a box"),
    ("math", r"\boxed {\frac{1}{2}}", "0.5", {}, True, "space before the brace"),
    ("math", r"\boxed{2} so \boxed{", "2", {}, False, "the last box is never closed"),
    ("math", r"\boxed{2} so \boxed{ }", "2", {}, False, "the last box is empty"),
    ("math", "The answer is 42.", "42", {}, False, "no box"),
    ("math", "", "42", {}, False, "nothing at all"),
    ("math", r"<think>It is \boxed{2}.</think> Hence \boxed{3}", "3", {}, True, "the box after the reasoning"),
    ("math", r"<think>It is \boxed{3}.</think> Hence \boxed{2}", "3", {}, False, "the box in the reasoning"),
    ("math", r"<think>It is \boxed{3}.</think> Done.", "3", {}, False, "only a box in the reasoning"),
    ("math", r"<think>It is \boxed{3}.", "3", {}, False, "reasoning never ends"),
    ("math", r"It is \boxed{2}.</think> Hence \boxed{3}", "3", {}, True, "block opened in the prompt"),
    ("math+think_in_prompt", r"It is \boxed{3}.", "3", {}, False, "block opened in the prompt, never closed"),
    ("math+think_in_prompt", r"So.</think>\boxed{3}", "3", {}, True, "block opened in the prompt, closed"),
    ("math+final_expression", "So the answer is 42.", "42", {}, True, "answer phrase"),
    ("math+final_expression", "**Final answer:** $\\frac{1}{2}$.", "0.5", {}, True, "answer phrase and formula"),
    ("math+final_expression", "The answer is 7. I checked 12 cases.", "7", {}, True, "a sentence after the answer"),
    ("math+final_expression", "Hence $x = 3$ and we are done.", "3", {}, True, "the last formula"),
    ("math+final_expression", "2 + 3 makes 5", "5", {}, True, "the last number"),
    ("math+final_expression", "The total is 1,250 dollars", "1250", {}, True, "the last number, with a comma"),
    ("math+final_expression", r"The answer is 42, so \boxed{41}", "42", {}, False, "a box goes before prose"),
    ("math+final_expression", "<think>The answer is 42.</think>", "42", {}, False, "prose in the reasoning"),
    ("math+final_expression", "I cannot say.", "42", {}, False, "no expression"),
]

TEXTS = ["a dog", "a cat", r"$\frac{1}{2}$", "42 J", "none of these"]
CHOICES = boxed(
    "choice",
    {"options": TEXTS},
    r"""
    B | B | yes | letter
    (B) | B | yes | parentheses
    B. | B | yes | full stop
    B) | B | yes | one parenthesis
    b | B | yes | lower case
    \text{B} | B | yes | text
    \text{(B)} | B | yes | text and parentheses
    \textbf{(B)} | B | yes | bold
    \mathrm{B} | B | yes | upright
    B) a cat | B | yes | letter and text
    \textbf{(B)}\ a cat | B | yes | letter and text in LaTeX
    B) a dog | B | no | letter and text contradict each other
    a cat | B | yes | the option's text
    \text{A Cat} | B | yes | the option's text, other case
    \frac{1}{2} | C | yes | the option's formula
    42 J | D | yes | the option's number and unit
    42 m | D | no | another unit
    A | B | no | another letter
    A, B | B | no | two letters
    (A) and (B) | A | no | two letters
    F | B | no | there is no such option
    a bird | B | no | no option's text
    Option B | B | yes | the word option
    The cat is bad | B | no | a sentence
    """,
) + [
    ("choice", "The answer is (B).", "B", {"options": TEXTS}, False, "prose counts only if configured"),
    ("choice+final_expression", "The answer is (B).", "B", {"options": TEXTS}, True, "letter in prose"),
    ("choice+final_expression", "The correct answer is B, since cats purr.", "B", {}, True, "letter and reason"),
    ("choice+final_expression", "The answer is A dog.", "A", {}, False, "an article is no letter"),
    ("choice+final_expression", "Answer: **C**", "C", {"options": TEXTS}, True, "bold letter in prose"),
    ("choice+final_expression", "A and B are both fine.", "A", {"options": TEXTS}, False, "no answer phrase"),
    ("choice", r"\boxed{J}", "J", {}, True, "ten options, no texts"),
    ("choice", r"\boxed{same}", "A", {"options": ["same", "same"]}, False, "text of two options"),
]

THEOREM_QA = (
    boxed(
        "number",
        {},
        r"""
    3.5 | 3.464 | yes | within four percent
    2\sqrt{3} | 3.464 | yes | a root
    3.7 | 3.464 | no | more than four percent
    3 | 3 | yes | integer
    3.0 | 3 | yes | integer as a decimal
    3.01 | 3 | no | integers are exact
    1e-3 | 0.001 | yes | scientific
    \frac{\pi}{4} | 0.7854 | yes | a formula
    x = 0.7854 | 0.7854 | yes | named
    0.7854 \text{ m/s} | 0.7854 | yes | unit
    -3.464 | 3.464 | no | sign
    0 | 0.0 | yes | zero
    0.001 | 0.0 | no | zero has no relative tolerance
    \frac{1}{0} | 1.0 | no | infinite
    i | 1.0 | no | not real
    large | 1.0 | no | not a number
    1, 2 | 1.0 | no | two numbers
    """,
    )
    + boxed("number", {"tolerance": 0.1}, "330 | 300 | yes | given tolerance\n331 | 300 | no | beyond it")
    + boxed(
        "list",
        {},
        r"""
    [1, 2] | [1, 2] | yes | literal
    (1, 2) | [1, 2] | yes | parentheses
    1, 2 | [1, 2] | yes | bare
    \{1, 2\} | [1, 2] | yes | braces
    [2, 1] | [1, 2] | no | order
    [1, 2, 3] | [1, 2] | no | too long
    [1] | [1, 2] | no | too short
    [1, \frac{1}{3}] | [1, 0.333] | yes | fraction for decimal
    \begin{pmatrix}1\\2\end{pmatrix} | [1, 2] | yes | vector
    [1, x] | [1, 2] | no | not a number
    """,
    )
    + boxed(
        "boolean",
        {},
        r"""
    True | True | yes | literal
    true | True | yes | case
    \text{True} | True | yes | text
    Yes | True | yes | yes
    No | False | yes | no
    False | True | no | the other one
    not True | True | no | negated
    1 | True | no | a number
    True or False | True | no | both
    """,
    )
)

HOSTILE = [
    ("math", rf"\boxed{{{answer}}}", "2", {}, False, why)
    for answer, why in [
        ("9^{9^{9^9}}", "tower"),
        ("9**9**9**9", "tower as in code"),
        ("((9!)!)!", "factorial of factorials"),
        (r"\sum_{n=1}^{10^{9}} \frac{1}{n^7}", "endless sum"),
        (r"\frac{1}{" * 200 + "2" + "}" * 200, "nested fractions"),
        ("(" * 900 + "2" + ")" * 900, "nested parentheses"),
        ("1+" * 50_000 + "1", "100k characters"),
        ("2" * 1999, "2000 digits"),
        ("{" * 50_000, "unbalanced"),
        (r"\frac{}{}", "empty fraction"),
        (r"\begin{pmatrix}", "unfinished matrix"),
        ("\\", "a backslash"),
        ("\x00\ud800", "no text"),
        ("__import__('os').getcwd()", "code"),
        ("1e999999999", "exponent"),
        ("(a+b+c+d)^{500}", "expansion"),
        (r"\frac{1}{0}", "division by zero"),
        (r"\infty", "infinity"),
    ]
]

CASES: list[Case] = [
    *NUMBERS, *ROOTS_AND_FORMULAS, *UNITS, *SETS_AND_TUPLES, *EQUATIONS_BASES_WORDS, *RESPONSES, *CHOICES, *THEOREM_QA,
    *HOSTILE, *MORE,
]  # fmt: skip

# Right answers that are called wrong, none the other way round.
STILL_WRONG = [
    *boxed(
        "math",
        {},
        r"""
    six | 6 | yes | numbers in words are not read
    5 \text{ cm} | 50 \text{ mm} | yes | units are compared by name and not converted
    \int_0^7 1\,dx | 7 | yes | integrals, sums and products in an answer are not evaluated
    """,
    ),
]
