"""Formulas in LaTeX and algebra in plain text: what is spoken is right to the character."""

import pytest
from support.spoken import spoken

from mirrorchat.engines import Language
from mirrorchat.text.formulas import Formulas
from mirrorchat.text.normalization.normalize import normalize_text

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE

ENGLISH_LATEX = [
    (r"The area is $\pi r^2$.", "The area is pi r squared."),
    (r"We have $\frac{3}{4}$ of it left.", "We have three quarters of it left."),
    (
        r"So $x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$ solves it.",
        "So x equals minus b plus or minus the square root of b squared minus four a c over two a solves it.",
    ),
    (r"\[ \int_0^1 x^2 \, dx = \frac{1}{3} \]", "the integral from zero to one of x squared d x equals one third"),
    (r"$$\lim_{n \to \infty} \frac{1}{n} = 0$$", "the limit as n approaches infinity of one over n equals zero"),
    (r"If $x \geq 0$, then $|x| = x$.", "If x greater than or equal to zero, then the absolute value of x equals x."),
    (r"The angle is $90^\circ$ or $\frac{\pi}{2}$.", "The angle is ninety degrees or pi over two."),
    (r"It grew by $12\%$ in $3\text{ s}$.", "It grew by twelve percent in three seconds."),
    (
        r"Let $A = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$.",
        "Let A equals the matrix, row one: one, two, row two: three, four.",
    ),
    (
        r"The volume is $V = \frac{4}{3}\pi r^3$; it is large.",
        "The volume is V equals four over three pi r cubed; it is large.",
    ),
    (
        "It costs $5 and $10, or $1.50 per day.",
        "It costs five dollars and ten dollars, or one dollar and fifty cents per day.",
    ),
    (r"$\sqrt[3]{27} = 3$ holds.", "the cube root of twenty-seven equals three holds."),
    (
        r"The speed is $3 \times 10^8\ \mathrm{m/s}$.",
        "The speed is three times ten to the power of eight meters per second.",
    ),
    (
        r"$\text{speed} = \frac{\text{distance}}{\text{time}}$ is the formula.",
        "speed equals distance over time is the formula.",
    ),
    (r"Choose $\binom{n}{k}$ of them.", "Choose n choose k of them."),
    ("Here $x_1$ and $x_{n+1}$ differ.", "Here x sub one and x sub n plus one differ."),
    (r"$\alpha + \beta = \gamma$ is short.", "alpha plus beta equals gamma is short."),
    (r"$\log_2 8 = 3$ and $\ln x$.", "log base two of eight equals three and L N x."),
    (r"Euler wrote $e^{i\pi} + 1 = 0$.", "Euler wrote e to the power of i pi plus one equals zero."),
    (r"Then $\Delta = b^2 - 4ac$.", "Then Delta equals b squared minus four a c."),
    (r"The price is \$5 today.", "The price is five dollars today."),
]
CHINESE_LATEX = [
    (r"面积是$\pi r^2$。", "面积是派 r 的平方。"),
    (r"剩下$\frac{3}{4}$。", "剩下四分之三。"),
    (r"解为$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$。", "解为 x 等于二 a 分之负 b 加减根号 b 的平方减四 a c。"),
    (r"\[ \int_0^1 x^2 \, dx = \frac{1}{3} \]", "从零到一积分 x 的平方 d x 等于三分之一"),
    (r"$$\lim_{n \to \infty} \frac{1}{n} = 0$$", "当 n 趋于无穷大时的极限 n 分之一等于零"),
    (r"若$x \geq 0$，则$|x| = x$。", "若 x 大于等于零，则 x 的绝对值等于 x。"),
    (r"角度是$90^\circ$。", "角度是九十度。"),
    (r"增长了$12\%$，用时$3\text{ s}$。", "增长了百分之十二，用时三秒。"),
    (r"设$A = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$。", "设 A 等于矩阵，第一行一，二，第二行三，四。"),
    (r"体积$V = \frac{4}{3}\pi r^3$。", "体积 V 等于三分之四派 r 的立方。"),
    ("价格是$5到$10。", "价格是五美元到十美元。"),
    ("亏了$-5、$-9M，又赚了$6。", "亏了负五美元、负九百万美元，又赚了六美元。"),
    (r"$\sqrt[3]{27} = 3$成立。", "三次根号二十七等于三成立。"),
    (r"光速是$3 \times 10^8\ \mathrm{m/s}$。", "光速是三乘十的八次方米每秒。"),
    (r"从$n$个中取$k$个：$\binom{n}{k}$。", "从 n 个中取 k 个：n 选 k。"),
    ("$x_1$和$x_{n+1}$不同。", "x 一和 x n 加一不同。"),
    (r"$\alpha + \beta = \gamma$。", "阿尔法加贝塔等于伽马。"),
    (r"$\log_2 8 = 3$。", "log 二，八等于三。"),
    (r"欧拉公式$e^{i\pi} + 1 = 0$很美。", "欧拉公式 e 的 i 派次方加一等于零很美。"),
    (r"$\vec{F} = m\vec{a}$。", "向量 F 等于 m 向量 a。"),
    (r"$a \neq b$，$a \times b$，$a \cdot b$，$a \div b$。", "a 不等于 b，a 乘 b，a 乘 b，a 除以 b。"),
    (r"$x \in \mathbb{R}$且$x \to 0$。", "x 属于 R 且 x 趋于零。"),
    (r"$12/5$和$\frac{12}{5}$", "五分之十二和五分之十二"),
]
ENGLISH_ALGEBRA = [
    ("The derivative of x² is 2x.", "The derivative of x squared is two x."),
    ("y = 2x + 1", "y equals two x plus one"),
    ("It is 10x faster and 2x cheaper.", "It is ten times faster and two times cheaper."),
    ("Solve 2x = 4 for x.", "Solve two x equals four for x."),
    ("(a+b)² = a² + 2ab + b²", "(a plus b) squared equals a squared plus two a b plus b squared"),
    ("The roots are x₁ and x₂.", "The roots are x sub one and x sub two."),
    ("f(x) = 2x and f'(x) = 2", "f of x equals two x and f prime of x equals two"),
    ("|x| ≥ 0", "the absolute value of x greater than or equal to zero"),
    ("E=mc² and F=ma.", "E equals m c squared and F equals m a."),
    (
        "The area is 50 m² or 5 km², 9.8 m/s².",
        "The area is fifty square meters or five square kilometers, nine point eight meters per second squared.",
    ),
    (
        "√2 ≈ 1.414 and √(x+1)",
        "the square root of two is about one point four one four and the square root of (x plus one)",
    ),
    ("log₂8 = 3", "log base two of eight equals three"),
    ("a/b and 1/x", "a over b and one over x"),
    (
        "and/or, A/B testing, w/o, I/O, km/h, n/a",
        "and or, A B testing, without, I O, kilometers per hour, not applicable",
    ),
    ("2ⁿ⁺¹ and xⁿ and e^x", "two to the power of n plus one and x to the power of n and e to the power of x"),
    ("Ca²⁺ and Na⁺ and Cl⁻", "C A two plus and N A plus and C L minus"),
    ("H₂O and C₆H₁₂O₆", "H two O and C six H twelve O six"),
    ("x = 5 km, t = 3 s", "x equals five kilometers, t equals three seconds"),
    ("v=10m/s", "v equals ten meters per second"),
    ("The Greek letters α and β.", "The Greek letters alpha and beta."),
    ("sin(x) and sin²x + cos²x = 1", "sine of x and sine squared x plus cosine squared x equals one"),
    ("P(A|B) = 0.5", "P of A given B equals zero point five"),
    ("A + B is a grade A+ thing", "A plus B is a grade A plus thing"),
    ("C++ and C#", "C plus plus and C sharp"),
    ("x-axis and x-1 and 2x-1", "x-axis and x minus one and two x minus one"),
    ("x ∈ ℝ, ∀x", "x in R, for all x"),
    ("O(n log n) and O(n^2)", "O of n log n and O of n squared"),
    ("3ab and 2xy are terms", "three a b and two x y are terms"),
    ("x^{-1}, 10^{-3}", "x to the power of minus one, ten to the power of minus three"),
    ("as x→0", "as x approaches zero"),
    ("V = IR", "V equals I R"),
    ("I <3 you", "I less than three you"),
    ("The bus leaves at 5 - take it", "The bus leaves at five - take it"),
    ("a ≠ b", "a does not equal b"),
    ("y = -3x - 2", "y equals minus three x minus two"),
    ("p = 0.05", "p equals zero point zero five"),
    ("x=1, y=2, z=3", "x equals one, y equals two, z equals three"),
    ("a = 1/2", "a equals one half"),
    (r"\frac{a}{b} is a fraction, 30^\circ", "a over b is a fraction, thirty degrees"),
    ("2x²-3x+1=0", "two x squared minus three x plus one equals zero"),
    ("T+1 settlement, B+ tree", "T plus one settlement, B plus tree"),
    ("if x > 5 and y < 3", "if x greater than five and y less than three"),
    ("item(s) and H2O(l)", "item(s) and H two O(l)"),
    ("k = 1.5e3", "k equals one point five times ten cubed"),
    ("x_1 and x_{12} and my_var", "x sub one and x sub twelve and my var"),
    ("m = (y2 - y1)/(x2 - x1)", "m equals (y two minus y one) over (x two minus x one)"),
    ("Δx = x₂ − x₁", "Delta x equals x sub two minus x sub one"),
    ("α-helix, β-carotene", "alpha-helix, beta-carotene"),
]
CHINESE_ALGEBRA = [
    ("一次函数y=2x+1的图像。", "一次函数 y 等于二 x 加一的图像。"),
    ("解方程2x=4，得x=2。", "解方程二 x 等于四，得 x 等于二。"),
    ("性能提升2x。", "性能提升两倍。"),
    ("二次函数y=ax²+bx+c的顶点", "二次函数 y 等于 a x 的平方加 b x 加 c 的顶点"),
    ("x²+y²=1是圆", "x 的平方加 y 的平方等于一是圆"),
    ("(a+b)²=a²+2ab+b²", "(a 加 b)的平方等于 a 的平方加二 a b 加 b 的平方"),
    ("设f(x)=2x，则f(1)=2", "设 f x 等于二 x，则 f 一等于二"),
    ("若|x|≥0", "若 x 的绝对值大于等于零"),
    ("3ab是单项式", "三 a b 是单项式"),
    ("x₁+x₂=-b/a", "x 一加 x 二等于负 a 分之 b"),
    ("a₁₂和aₙ₊₁", "a 十二和 a n 加一"),
    ("2ⁿ⁺¹和xⁿ", "二的 n 加一次方和 x 的 n 次方"),
    ("直线y=kx+b", "直线 y 等于 k x 加 b"),
    ("当x→0时", "当 x 趋于零时"),
    ("sin²x+cos²x=1", "sin 平方 x 加 cos 平方 x 等于一"),
    ("F=ma，E=mc²，PV=nRT", "F 等于 m a，E 等于 m c 的平方，P V 等于 n R T"),
    ("Ca²⁺和SO₄²⁻", "C A 二正和 S O 四二负"),
    ("H₂O和CO₂", "H 二 O 和 C O 二"),
    ("面积50m²，密度1.29kg/m³", "面积五十平方米，密度一点二九公斤每立方米"),
    ("√2≈1.414，√(x+1)", "根号二约等于一点四一四，根号(x 加一)"),
    ("log₂8=3", "log 二，八等于三"),
    ("化简2x+3x=5x", "化简二 x 加三 x 等于五 x"),
    ("x=5km", "x 等于五公里"),
    ("x=50%", "x 等于百分之五十"),
    ("C++和C#", "C 加加和 C sharp"),
    ("f'(x)=2x", "f 一撇 x 等于二 x"),
    ("AB=CD，∠A=30°", "A B 等于 C D，角 A 等于三十度"),
    ("10^{-3}米", "十的负三次方米"),
    ("n!=120", "n 的阶乘等于一百二十"),
    ("x∈R，∀x", "x 属于 R，对任意 x"),
    ("v=10m/s", "v 等于十米每秒"),
    ("面积S=πr²", "面积 S 等于派 r 的平方"),
    ("若a>b则a-b>0", "若 a 大于 b 则 a 减 b 大于零"),
    ("令t=x-1", "令 t 等于 x 减一"),
    ("速度v=s/t", "速度 v 等于 t 分之 s"),
    ("α+β=90°", "阿尔法加贝塔等于九十度"),
    ("∑i=1", "求和 i 等于一"),
    ("概率P(A|B)", "概率 P A 给定 B"),
    (r"\frac{1}{2}和\sqrt{2}", "二分之一和根号二"),
    ("x_1和x_{12}", "x 一和 x 十二"),
    ("e^x的导数", "e 的 x 次方的导数"),
    ("O(n log n)", "O n log n"),
    ("ab=ba", "a b 等于 b a"),
    ("2x+3y=12", "二 x 加三 y 等于十二"),
]

ENGLISH_ANSWERS = [
    (
        "The formula for the area of a circle is $A = \\pi r^2$, where $r$ is the radius.",
        "The formula for the area of a circle is A equals pi r squared, where r is the radius.",
    ),
    (
        "**Step 1:** Solve for $x$:\n\n$$2x + 3 = 7$$\n\nSubtract 3: $2x = 4$. So $x = 2$.",
        "Step one: Solve for x: two x plus three equals seven Subtract three: two x equals four. So x equals two.",
    ),
    (
        (
            "Here's the quadratic formula:\n\n\\[\nx = \\frac{-b \\pm \\sqrt{b^2 - 4ac}}{2a}\n\\]\n\nUse it when "
            "$a \\neq 0$."
        ),
        (
            "Here's the quadratic formula: x equals minus b plus or minus the square root of b squared minus "
            "four a c over two a Use it when a does not equal zero."
        ),
    ),
    (
        "The time complexity is $O(n \\log n)$ on average and O(n²) in the worst case.",
        "The time complexity is O of n log n on average and O of n squared in the worst case.",
    ),
    (
        "Water (H₂O) freezes at 0 °C (32 °F) & boils at 100 °C.",
        (
            "Water (H two O) freezes at zero degrees Celsius (thirty-two degrees Fahrenheit) and boils at one "
            "hundred degrees Celsius."
        ),
    ),
    ("The ratio a:b is 3:2, and a/b = 1.5.", "The ratio a:b is three to two, and a over b equals one point five."),
    ("e = mc^2? No, E = mc^2!", "e equals m c squared? No, E equals m c squared!"),
    (
        "Let's compute 3^4 = 81 and 2^{10} = 1024.",
        (
            "Let's compute three to the power of four equals eighty-one and two to the power of ten equals one "
            "thousand and twenty-four."
        ),
    ),
    (
        "If f(x) = x^3, then f'(x) = 3x^2 and ∫f(x)dx = x^4/4 + C.",
        (
            "If f of x equals x cubed, then f prime of x equals three x squared and the integral of f of x d x "
            "equals x to the power of four over four plus C."
        ),
    ),
    (
        "sin(30°) = 1/2, cos 60° = 0.5",
        "sine of thirty degrees equals one half, cosine sixty degrees equals zero point five",
    ),
    ("x ≈ 3.14 ± 0.01", "x is about three point one four plus or minus zero point zero one"),
    ("∀x ∈ ℝ: x² ≥ 0", "for all x in R: x squared greater than or equal to zero"),
    ("A ∪ B and A ∩ B, A ⊆ B", "A union B and A intersection B, A is a subset of B"),
    (
        "Let's say x = 5, y = 10; then x + y = 15.",
        "Let's say x equals five, y equals ten; then x plus y equals fifteen.",
    ),
    (
        "p-value < 0.05, n = 30, R² = 0.95",
        "p-value less than zero point zero five, n equals thirty, R squared equals zero point nine five",
    ),
    ("He said the i-th element a_i is 5.", "He said the i-th element a sub i is five."),
    ("C = 2πr, V = 4/3πr³", "C equals two pi r, V equals four over three pi r cubed"),
    (
        "1 + 1 = 2; 2 × 3 = 6; 10 ÷ 2 = 5; 7 − 4 = 3",
        (
            "one plus one equals two; two times three equals six; ten divided by two equals five; seven minus "
            "four equals three"
        ),
    ),
    ("Na⁺ and Cl⁻ ions; CO₃²⁻; Fe³⁺", "N A plus and C L minus ions; C O three two minus; F E three plus"),
    ("a² + b² = c²", "a squared plus b squared equals c squared"),
    ("log(x) and ln(2), log₁₀100 = 2", "log of x and L N of two, log base ten of one hundred equals two"),
    ("y = mx + b where m is the slope", "y equals m x plus b where m is the slope"),
    ("dy/dx = 2x", "d y over d x equals two x"),
    ("Σx = 10, ΔT = 5 K, Ω = 10", "Sigma x equals ten, Delta T equals five kelvin, Omega equals ten"),
    ("(x + 1)(x − 1) = x² − 1", "(x plus one) (x minus one) equals x squared minus one"),
    ("3x > 6 → x > 2", "three x greater than six to x greater than two"),
    ("½mv² is the kinetic energy", "one half m v squared is the kinetic energy"),
    ("It's 2x² + 3x - 5 = 0.", "It's two x squared plus three x minus five equals zero."),
    ("|x − 3| < 5", "the absolute value of x minus three less than five"),
    (
        "√(a² + b²) and ∛8 and ∜16",
        (
            "the square root of (a squared plus b squared) and the cube root of eight and the root of order four "
            "of sixteen"
        ),
    ),
    ("5 × 10⁻³ mol/L", "five times ten to the power of minus three moles per liter"),
    ("10^6 people, 2^n ways", "ten to the power of six people, two to the power of n ways"),
    ("Press Ctrl+C or Alt+F4.", "Press Ctrl plus C or Alt plus F four."),
    ("5! = 120 is true.", "five factorial equals one hundred and twenty is true."),
    ("Speed in km/h, density in kg/m³.", "Speed in kilometers per hour, density in kilograms per cubic meter."),
    (
        "The mass is $5.97 \\times 10^{24}$ kg.",
        "The mass is five point nine seven times ten to the power of twenty-four kilograms.",
    ),
    ("It is $5$ km and $-3^\\circ$C away.", "It is five kilometers and minus three degrees Celsius away."),
    ("the $n$th and $n$-th and $k^{th}$ term", "the nth and n-th and kth term"),
    ("2 \\times 3 = 6 and \\frac{1}{2} of it", "two times three equals six and one half of it"),
    ("\\textbf{Important:} read \\textit{this} now.", "Important: read this now."),
    ("a==b and c==d are equal", "a equals b and c equals d are equal"),
    ("==marked== and ==two words== here", "marked and two words here"),
    ("2H₂ + O₂ → 2H₂O", "two H two plus O two yields two H two O"),
    ("$2H_2 + O_2 \\rightarrow 2H_2O$", "two H two plus O two to two H two O"),
    ("$\\ce{H2SO4}$ is an acid", "H two S O four is an acid"),
    ("$\\mathbf{v} = (v_1, v_2)$", "v equals (v sub one, v sub two)"),
    ("$3\\frac{1}{2}$ cups", "three and one half cups"),
    ("$\\angle ABC = 60^\\circ$", "angle A B C equals sixty degrees"),
    ("$a_1, a_2, \\dots, a_n$", "a sub one, a sub two, dot dot dot, a sub n"),
    ("$\\sqrt{2}$ is irrational.", "the square root of two is irrational."),
    ("$x \\mapsto x^2$", "x to x squared"),
    (
        "The probability is $\\frac{1}{6} \\approx 0.167$.",
        "The probability is one sixth is about zero point one six seven.",
    ),
    ("Let $\\varepsilon > 0$.", "Let epsilon greater than zero."),
    ("$\\hat{y} = \\beta_0 + \\beta_1 x$", "y hat equals beta sub zero plus beta sub one x"),
    (
        "$$\\int_{-\\infty}^{\\infty} e^{-x^2} dx = \\sqrt{\\pi}$$",
        (
            "the integral from minus infinity to infinity of e to the power of minus x squared d x equals the "
            "square root of pi"
        ),
    ),
    ("$1{,}000$ people", "one thousand people"),
    ("$\\$5$ each", "five dollars each"),
    ("$90\\%$ sure", "ninety percent sure"),
    ("$p \\leq 0.05$; $q \\ge 1$", "p less than or equal to zero point zero five; q greater than or equal to one"),
    ("\\(a^2 + b^2 = c^2\\); that is it.", "a squared plus b squared equals c squared; that is it."),
    ("$\\frac{a+b}{c+d}$ and $\\frac{\\sqrt{3}}{2}$", "a plus b over c plus d and the square root of three over two"),
    (
        "$\\log_{10}(100) = 2$ and $\\ln(x)$, $\\sin^2\\theta$",
        "log base ten of (one hundred) equals two and L N of x, sine squared theta",
    ),
    ("$\\max(a, b)$ and $\\min_{x} f(x)$", "max of a, b and min sub x f of x"),
    ("$|A \\cup B|$", "the absolute value of A union B"),
    ("$n \\equiv 1 \\pmod{4}$", "n is identical to one mod four"),
    ("$A^{-1}$ and $A^{T}$", "A to the power of minus one and A transpose"),
    ("$10^{-6}$ m", "ten to the power of minus six meters"),
    ("$x=1$ or $x=-2$", "x equals one or x equals minus two"),
    ("$\\begin{cases} x+y=1 \\\\ x-y=3 \\end{cases}$", "x plus y equals one, x minus y equals three"),
    ("$x² + y² = 1$ is it.", "x squared plus y squared equals one is it."),
    ("$H₂O$ and $a₁$ are plain.", "H two O and a sub one are plain."),
    ("So 2x here.", "So two times here."),
    ("So The slope is 3x. here.", "So The slope is three x. here."),
    ("So 4xy + 2y here.", "So four x y plus two y here."),
    ("So (2x)(3y) here.", "So (two x) (three y) here."),
    ("So 2x/3 here.", "So two x over three here."),
    ("So y=½x here.", "So y equals one half x here."),
    ("So -2x here.", "So minus two x here."),
    ("So x*y here.", "So x times y here."),
    ("So x ** 2 here.", "So x squared here."),
    ("So x^2y^3 here.", "So x squared y cubed here."),
    ("So sqrt(2) here.", "So the square root of (two) here."),
    ("So f(x,y)=x+y here.", "So f of x, y equals x plus y here."),
    ("So |-5| = 5 here.", "So the absolute value of minus five equals five here."),
    ("So x<=5 here.", "So x less than or equal to five here."),
    ("So x!=0 here.", "So x does not equal zero here."),
    ("So x′ here.", "So x prime here."),
    ("So aᵢⱼ here.", "So a sub i j here."),
    ("So 10^(-2) here.", "So ten to the power of minus two here."),
    ("So e⁻ˣ here.", "So e to the power of minus x here."),
    ("So x^(1/2) here.", "So x to the power of one half here."),
    ("So ∛x here.", "So the cube root of x here."),
    ("So log x here.", "So log x here."),
    ("So sinx here.", "So sine x here."),
    ("So sin(x+1) here.", "So sine of (x plus one) here."),
    ("So cos2x here.", "So cosine two x here."),
    ("So arctan(1) here.", "So arc tangent of one here."),
    ("So Σxᵢ here.", "So Sigma x sub i here."),
    ("So lim(x→0) here.", "So the limit as x approaches zero of here."),
    ("So ∂f/∂x here.", "So partial f over partial x here."),
    ("So d²y/dx² here.", "So d squared y over d x squared here."),
    ("So ∠ABC here.", "So angle A B C here."),
    ("So AB∥CD here.", "So A B is parallel to C D here."),
    ("So ∵a=b here.", "So because a equals b here."),
    ("So ⅔x here.", "So two thirds x here."),
    ("Set HF_HOME or GIT_DIR=foo for en_GB now.", "Set H F HOME or GIT DIR equals foo for en G B now."),
    ("Use max_size = 5 when USE_CUDA=0.", "Use max size equals five when USE CUDA equals zero."),
    ("Then g() + 1 follows.", "Then g plus one follows."),
]
CHINESE_ANSWERS = [
    ("圆的面积公式是$S=\\pi r^2$，其中$r$是半径。", "圆的面积公式是 S 等于派 r 的平方，其中 r 是半径。"),
    (
        "**第一步**：解方程\n\n$$2x+3=7$$\n\n移项得$2x=4$，所以$x=2$。",
        "第一步：解方程二 x 加三等于七移项得二 x 等于四，所以 x 等于二。",
    ),
    (
        "求根公式：\n\n\\[\nx=\\frac{-b\\pm\\sqrt{b^2-4ac}}{2a}\n\\]",
        "求根公式：x 等于二 a 分之负 b 加减根号 b 的平方减四 a c",
    ),
    ("时间复杂度是$O(n\\log n)$，最坏O(n²)。", "时间复杂度是 O n log n，最坏 O n 的平方。"),
    ("水（H₂O）在0°C结冰。", "水（H 二 O）在零摄氏度结冰。"),
    ("勾股定理：a²+b²=c²。", "勾股定理：a 的平方加 b 的平方等于 c 的平方。"),
    ("f(x)=x³的导数是f'(x)=3x²。", "f x 等于 x 的立方的导数是 f 一撇 x 等于三 x 的平方。"),
    ("若x>0且y<0，则xy<0。", "若 x 大于零且 y 小于零，则 x y 小于零。"),
    ("sin30°=1/2，cos60°=0.5，tan45°=1", "sin 三十度等于二分之一，cos 六十度等于零点五，tan 四十五度等于一"),
    ("x≈3.14±0.01", "x 约等于三点一四加减零点零一"),
    ("∀x∈R，x²≥0", "对任意 x 属于 R，x 的平方大于等于零"),
    ("A∪B，A∩B，A⊆B", "A 并 B，A 交 B，A 包含于 B"),
    ("设x=5，y=10，则x+y=15。", "设 x 等于五，y 等于十，则 x 加 y 等于十五。"),
    ("(x+1)(x-1)=x²-1", "(x 加一)(x 减一)等于 x 的平方减一"),
    ("|x-3|<5", "x 减三的绝对值小于五"),
    ("圆周长C=2πr，体积V=4/3πr³", "圆周长 C 等于二派 r，体积 V 等于三分之四派 r 的立方"),
    ("动能½mv²", "动能二分之一 m v 的平方"),
    ("2^n种，10^6个", "二的 n 次方种，十的六次方个"),
    ("√(a²+b²)和∛8", "根号(a 的平方加 b 的平方)和三次根号八"),
    ("5×10⁻³mol/L", "五乘十的负三次方摩尔每升"),
    (
        "△ABC≌△DEF，AB∥CD，AB⊥EF，∠A=90°",
        "三角形 A B C 全等于三角形 D E F，A B 平行于 C D，A B 垂直于 E F，角 A 等于九十度",
    ),
    ("数列aₙ=2n+1，前n项和Sₙ=n²", "数列 a n 等于二 n 加一，前 n 项和 S n 等于 n 的平方"),
    ("向量a·b=|a||b|cosθ", "向量 a 乘 b 等于 a 的绝对值 b 的绝对值 cos 西塔"),
    ("log₁₀100=2，ln2≈0.693", "log 十，一百等于二，ln 二约等于零点六九三"),
    ("P(A∩B)=P(A)P(B)", "P (A 交 B)等于 P A P B"),
    ("∫x²dx=x³/3+C", "积分 x 的平方 d x 等于三分之 x 的立方加 C"),
    ("y'=2x，y''=2", "y 一撇等于二 x，y 两撇等于二"),
    ("解得x₁=1，x₂=-2", "解得 x 一等于一，x 二等于负二"),
    ("抛物线y=-x²+2x-1", "抛物线 y 等于负 x 的平方加二 x 减一"),
    ("当x=-1时，y=-3", "当 x 等于负一时，y 等于负三"),
    ("5!=120", "五的阶乘等于一百二十"),
    ("i²=-1", "i 的平方等于负一"),
    ("1/x，x/y，(a+b)/2", "x 分之一，y 分之 x，二分之(a 加 b)"),
    ("价格上涨了2x，速度快10x", "价格上涨了两倍，速度快十倍"),
    ("CO₂排放，Ca²⁺，NaCl，H₂SO₄", "C O 二排放，C A 二正，N A C L，H 二 S O 四"),
    ("p<0.05，R²=0.95", "p 小于零点零五，R 的平方等于零点九五"),
    ("他的T恤是XL码，X光，x轴，y轴", "他的 T 恤是 X L 码，X 光，x 轴，y 轴"),
    ("按Ctrl+C或Alt+F4", "按 Ctrl 加 C 或 Alt 加 F 四"),
    ("3a+2b-c", "三 a 加二 b 减 c"),
    ("m²和km²，kg/m³", "平方米和平方公里，公斤每立方米"),
    ("2H₂ + O₂ → 2H₂O", "二 H 二加 O 二生成二 H 二 O"),
    ("$2H_2 + O_2 \\rightarrow 2H_2O$", "二 H 二加 O 二到二 H 二 O"),
    ("$\\mathbf{v} = (v_1, v_2)$", "v 等于(v 一，v 二)"),
    ("$\\angle ABC = 60^\\circ$", "角 A B C 等于六十度"),
    ("$a_1, a_2, \\dots, a_n$", "a 一，a 二，点点点，a n"),
    ("$x \\mapsto x^2$", "x 到 x 的平方"),
    ("Let $\\varepsilon > 0$.", "Let 艾普西龙大于零."),
    ("$\\hat{y} = \\beta_0 + \\beta_1 x$", "y 帽等于贝塔零加贝塔一 x"),
    (
        "$$\\int_{-\\infty}^{\\infty} e^{-x^2} dx = \\sqrt{\\pi}$$",
        "从负无穷大到无穷大积分 e 的负 x 的平方次方 d x 等于根号派",
    ),
    ("$p \\leq 0.05$; $q \\ge 1$", "p 小于等于零点零五;q 大于等于一"),
    ("$\\frac{a+b}{c+d}$ and $\\frac{\\sqrt{3}}{2}$", "c 加 d 分之 a 加 b and 二分之根号三"),
    ("$|A \\cup B|$", "A 并 B 的绝对值"),
    ("$n \\equiv 1 \\pmod{4}$", "n 恒等于一 mod 四"),
    ("$A^{-1}$ and $A^{T}$", "A 的负一次方 and A 的转置"),
    ("$10^{-6}$ m", "十的负六次方米"),
    ("$x=1$ or $x=-2$", "x 等于一 or x 等于负二"),
    ("$\\begin{cases} x+y=1 \\\\ x-y=3 \\end{cases}$", "x 加 y 等于一，x 减 y 等于三"),
    ("这里是2x吗", "这里是两倍吗"),
    ("这里是The slope is 3x.吗", "这里是 The slope is 三 x.吗"),
    ("这里是4xy + 2y吗", "这里是四 x y 加二 y 吗"),
    ("这里是(2x)(3y)吗", "这里是(二 x)(三 y)吗"),
    ("这里是2x/3吗", "这里是三分之二 x 吗"),
    ("这里是y=½x吗", "这里是 y 等于二分之一 x 吗"),
    ("这里是-2x吗", "这里是负二 x 吗"),
    ("这里是x*y吗", "这里是 x 乘 y 吗"),
    ("这里是x ** 2吗", "这里是 x 的平方吗"),
    ("这里是x^2y^3吗", "这里是 x 的平方 y 的立方吗"),
    ("这里是sqrt(2)吗", "这里是根号(二)吗"),
    ("这里是f(x,y)=x+y吗", "这里是 f x，y 等于 x 加 y 吗"),
    ("这里是|-5| = 5吗", "这里是负五的绝对值等于五吗"),
    ("这里是x<=5吗", "这里是 x 小于等于五吗"),
    ("这里是x!=0吗", "这里是 x 不等于零吗"),
    ("这里是x′吗", "这里是 x 一撇吗"),
    ("这里是aᵢⱼ吗", "这里是 a i j 吗"),
    ("这里是10^(-2)吗", "这里是十的负二次方吗"),
    ("这里是e⁻ˣ吗", "这里是 e 的负 x 次方吗"),
    ("这里是x^(1/2)吗", "这里是 x 的二分之一次方吗"),
    ("这里是∛x吗", "这里是三次根号 x 吗"),
    ("这里是log x吗", "这里是 log x 吗"),
    ("这里是sinx吗", "这里是 sin x 吗"),
    ("这里是sin(x+1)吗", "这里是 sin (x 加一)吗"),
    ("这里是cos2x吗", "这里是 cos 二 x 吗"),
    ("这里是arctan(1)吗", "这里是 arctan 一吗"),
    ("这里是Σxᵢ吗", "这里是西格玛 x i 吗"),
    ("这里是lim(x→0)吗", "这里是当 x 趋于零时的极限吗"),
    ("这里是∂f/∂x吗", "这里是偏 x 分之偏 f 吗"),
    ("这里是d²y/dx²吗", "这里是 d x 的平方分之 d 的平方 y 吗"),
    ("这里是∠ABC吗", "这里是角 A B C 吗"),
    ("这里是AB∥CD吗", "这里是 A B 平行于 C D 吗"),
    ("这里是∵a=b吗", "这里是因为 a 等于 b 吗"),
    ("这里是⅔x吗", "这里是三分之二 x 吗"),
]


@pytest.mark.parametrize(("written", "words"), ENGLISH_LATEX + ENGLISH_ALGEBRA + ENGLISH_ANSWERS)
def test_english(written: str, words: str) -> None:
    assert spoken(written, ENGLISH) == words
    assert normalize_text(words, ENGLISH) == words


@pytest.mark.parametrize(("written", "words"), CHINESE_LATEX + CHINESE_ALGEBRA + CHINESE_ANSWERS)
def test_chinese(written: str, words: str) -> None:
    assert spoken(written, CHINESE) == words
    assert normalize_text(words, CHINESE) == words


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.",
        "from $5-$10 to $20/$30",
        "Pay $5 million now. Pay $6 million later.",
        "$HOME and $PATH",
        "|$5|$6|",
        "$5<br>$6, $5&$6",
        "**$5**/**$10**",
        "US$5, A$6",
        "+$2.50, US$100, C$5",
        "-$2, A$9, $4 or S$3",
        "between 5$ and 10$",
        "一共$5，约36元，退$3。",
        "$x",
        "a \\b c",
        "\\begin{itemize} a",
    ],
)
def test_amounts_and_variables_of_a_shell_are_no_formulas(text: str) -> None:
    formulas = Formulas(ENGLISH)
    assert formulas.push(text) + formulas.flush() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$$x^2", "x squared"),
        (r"\[x^2", "x squared"),
        (r"\(see below\)", "(see below)"),
        (r"\\( \\frac{1}{2} \\)", "one half"),
        (r"$\\frac{1}{2}$", "one half"),
        ("$n$apples", "n apples"),
        (r"\begin{equation}a=b\end{equation}", "a equals b"),
        (r"$\unknown{x}$", "unknown x"),
        ("${" + "{" * 100 + "x^2$", " " * 100 + "x 2"),
    ],
)
def test_formulas_in_a_stream(text: str, words: str) -> None:
    formulas = Formulas(ENGLISH)
    in_one = formulas.push(text) + formulas.flush()
    assert in_one.split() == words.split()
    assert "".join(map(formulas.push, text)) + formulas.flush() == in_one


def test_a_formula_is_not_cut() -> None:
    assert spoken(r"It is $\text{e.g. this. That} = x$. Then more came.", ENGLISH).startswith("It is for example")
