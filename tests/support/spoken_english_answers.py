"""English: answers of chat models by kind, and what a careful speaker says of them."""

ENGLISH_ANSWERS: dict[str, tuple[tuple[str, str], ...]] = {
    "units with a full stop": (
        (
            "Add 3½ tbsp. of butter and 1 lb. of beef.",
            "Add three and a half tablespoons of butter and one pound of beef.",
        ),
        (
            "Whisk 2 large eggs, 1 c. milk, and 1 Tbsp. vanilla.",
            "Whisk two large eggs, one cup milk, and one tablespoon vanilla.",
        ),
        ("Drain an 8 oz. can of corn.", "Drain an eight ounce can of corn."),
        (
            "He is 6 ft. 2 in. tall and weighs 180 lbs.",
            "He is six foot two tall and weighs one hundred and eighty pounds.",
        ),
        (
            "Rest it for 45 min., and cool it for 2 hrs. in the fridge.",
            "Rest it for forty-five minutes, and cool it for two hours in the fridge.",
        ),
        (
            "It is 21 in. long and weighs 7 lb. 3 oz. She is fine.",
            "It is twenty-one inches long and weighs seven pounds three ounces. She is fine.",
        ),
        ("Drink 8 fl. oz. of water.", "Drink eight fluid ounces of water."),
        ("Wait 30 min. Then stir.", "Wait thirty minutes. Then stir."),
    ),
    "units of recipes, cars and medicine": (
        ("Fasting glucose is 70–99 mg/dL.", "Fasting glucose is seventy to ninety-nine milligrams per deciliter."),
        (
            "A pulse of 60-100 bpm and 120/80 mmHg is fine.",
            "A pulse of sixty to one hundred beats per minute and one hundred and twenty over eighty millimeters "
            "of mercury is fine.",
        ),
        ("It makes 300 hp and 30 mpg.", "It makes three hundred horsepower and thirty miles per gallon."),
        ("Take 1,000 IU daily.", "Take one thousand I U daily."),
        ("Fill it to 35 psi.", "Fill it to thirty-five P S I."),
        ("CO2 is at 420 ppm.", "C O two is at four hundred and twenty parts per million."),
        ("It needs 1 pt of cream and 2 qt of stock.", "It needs one pint of cream and two quarts of stock."),
        ("A 4.7kΩ resistor and a 10 N weight.", "A four point seven kilohm resistor and a ten newton weight."),
        ("The torque is 350 N·m.", "The torque is three hundred and fifty newton meters."),
    ),
    "units that describe": (
        ("a 14.5-oz can and a 70-kg adult", "a fourteen point five-ounce can and a seventy-kilogram adult"),
        ("a 50-lb bag and a 12-V battery", "a fifty-pound bag and a twelve-volt battery"),
        ("a 5.0L V8", "a five point zero liter V eight"),
        ('A 65" TV is 60 lbs.', "A sixty-five inch T V is sixty pounds."),
        ("a 24-70mm lens", "a twenty-four to seventy millimeter lens"),
        ("a $2.5-million house", "a two point five million dollar house"),
        ("a 105W TDP", "a one hundred and five watt T D P"),
        ("a 100 km/h wind", "a one hundred kilometer per hour wind"),
    ),
    "dimensions and inches": (
        ("The card is 5cm x 10cm.", "The card is five by ten centimeters."),
        ('a 9" x 13" pan', "a nine by thirteen inch pan"),
        ("a 4' x 8' sheet of 3/4\" plywood", "a four by eight foot sheet of three quarters inch plywood"),
        ("The box is 10 x 5 x 3 in.", "The box is ten by five by three inches."),
        ("It is 3 × 4 × 5 cm.", "It is three by four by five centimeters."),
        (
            "An A4 sheet is 210 × 297 mm.",
            "An A four sheet is two hundred and ten by two hundred and ninety-seven millimeters.",
        ),
        (
            "The screen has 2556×1179 px.",
            "The screen has two thousand five hundred and fifty-six by one thousand one hundred and seventy-nine "
            "pixels.",
        ),
        ('It snowed 12" to 15".', "It snowed twelve inches to fifteen inches."),
        ("The area is 3 m × 4 m = 12 m².", "The area is three meters times four meters equals twelve square meters."),
        ('He said "I am 5" and left.', 'He said "I am five" and left.'),
        ('a 2x4 of 1.5" × 3.5"', "a two by four of one point five by three point five inches"),
    ),
    "abbreviations before numbers": (
        ("See Fig. 3 and Eq. 5 in Sec. 2.1.", "See Figure three and Equation five in Section two point one."),
        ("Figs. 3-4 and Eqs. (1)–(3) show it.", "Figures three to four and Equations one to three show it."),
        ("Take it every 4 hours, max. 4g a day.", "Take it every four hours, maximum four grams a day."),
        ("Gutenberg was born c. 1400 in Mainz.", "Gutenberg was born circa fourteen hundred in Mainz."),
        (
            "It is in his Symphony No. 9, Op. 125, of course.",
            "It is in his Symphony number nine, Opus one hundred and twenty-five, of course.",
        ),
        ("They live at Bldg. 5, Ste. 200.", "They live at Building five, Suite two hundred."),
        ("Take Hwy. 1 and then Rte. 66.", "Take Highway one and then Route sixty-six."),
        ("The case is Roe v. Wade, of course.", "The case is Roe versus Wade, of course."),
    ),
    "addresses": (
        (
            "Send it to 123 Main St., Apt. 4B, Springfield, IL 62704.",
            "Send it to one twenty-three Main Street, Apartment four B, Springfield, Illinois six two seven zero "
            "four.",
        ),
        (
            "It is at 1600 Pennsylvania Ave NW, Washington, DC 20500.",
            "It is at sixteen hundred Pennsylvania Avenue N W, Washington, D C two zero five zero zero.",
        ),
        (
            "The office is at 350 5th Ave, New York, NY 10118-0110.",
            "The office is at three fifty fifth Avenue, New York, New York one zero one one eight, zero one one zero.",
        ),
        ("Walk from 5th Ave to 42nd St and back.", "Walk from fifth Avenue to forty-second Street and back."),
        (
            "Write to P.O. Box 1234, Austin, TX 78701.",
            "Write to P O Box twelve thirty-four, Austin, Texas seven eight seven zero one.",
        ),
        ("My ZIP is 90210-1234.", "My ZIP is nine zero two one zero, one two three four."),
        ("Call 1-800-FLOWERS today.", "Call one, eight zero zero, FLOWERS today."),
        ("Flight UA 2045 lands at noon.", "Flight U A twenty forty-five lands at noon."),
        ("Room 1204 costs $90.", "Room twelve oh four costs ninety dollars."),
    ),
    "signs that were lost": (
        (
            "The mean is (85 + 90)/2 = 87.5.",
            "The mean is (eighty-five plus ninety) divided by two equals eighty-seven point five.",
        ),
        ("It has 8 cores/16 threads.", "It has eight cores, sixteen threads."),
        ("She got a B- in French.", "She got a B minus in French."),
        ("The sum is 1 + 2 + ... + n.", "The sum is one plus two plus ... plus n."),
        ("See § 230 and §§ 5–7.", "See section two hundred and thirty and sections five to seven."),
        ("The call is at 3 PM EST / 12 PM PST.", "The call is at three p.m. E S T, twelve p.m. P S T."),
        ("The odds are 1/1,000,000.", "The odds are one in one million."),
        (
            "He paid ($5), +$3, USD 5, 5 USD, US$5.5bn.",
            "He paid (five dollars), plus three dollars, five U S dollars, five U S dollars, five point five "
            "billion U S dollars.",
        ),
        ("It costs $3, US$5 or HK$40.", "It costs three dollars, five U S dollars or forty Hong Kong dollars."),
        ("He came at 6:10am (+1).", "He came at six ten a.m. (plus one)."),
    ),
    "commands": (
        ("Run `git push --force` now.", "Run git push dash dash force now."),
        ('Run `git commit -m "fix"` now.', 'Run git commit dash m "fix" now.'),
        ("Use `ls -la` here.", "Use ls dash la here."),
        ("Run `npm install --save-dev typescript` first.", "Run npm install dash dash save-dev typescript first."),
        ("Delete it with `rm -rf build/`.", "Delete it with rm dash rf build."),
        ("Open Settings > Privacy > Location.", "Open Settings, Privacy, Location."),
        ("Click File > Save As.", "Click File, Save As."),
        ("It is very late -- and dark.", "It is very late -- and dark."),
    ),
    "dates and verses": (
        ("The exam is Fri 12/6 at 8am.", "The exam is Friday December sixth at eight a.m."),
        ("It is due Mon., Jan. 6.", "It is due Monday, January sixth."),
        ("We meet on Tue with Ann.", "We meet on Tuesday with Ann."),
        ("Christmas is 12/25.", "Christmas is December twenty-fifth."),
        ("It runs Jan.–Mar. and in May.", "It runs January to March and in May."),
        ("FY2024/25 was good.", "F Y twenty twenty-four to twenty-five was good."),
        ("John 3:16 is famous.", "John three sixteen is famous."),
        (
            "Read Psalm 23:1-4 and 1 Corinthians 13:4.",
            "Read Psalm twenty-three, one to four and First Corinthians thirteen four.",
        ),
    ),
}
