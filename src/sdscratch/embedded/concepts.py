"""What the embedded model knows: about 230 well-known things, each by its pictogram and the words for it.

Only data, meant to be read and edited. A line of `CONCEPTS` and `MORE_CONCEPTS` is

    <CLDR short name of the emoji> = <word> / <another word for the same>

The part after `=` is left out where the short name already is what one would say. A `*` before the words
marks those that take no "a" (grapes, fire).
"""

from __future__ import annotations

__all__ = [
    "ACCESSORIES",
    "BACKGROUNDS",
    "CONCEPTS",
    "HEADS",
    "HUES",
    "INTRICATE",
    "MORE_CONCEPTS",
    "RECOLOURED",
    "Wearable",
]

from typing import NamedTuple

# Red, green, blue in 0 to 1. A caption that names no background means white.
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.05, 0.05, 0.05),
    "red": (0.9, 0.2, 0.2),
    "green": (0.3, 0.75, 0.35),
    "blue": (0.25, 0.45, 0.9),
    "yellow": (1.0, 0.9, 0.35),
    "pink": (1.0, 0.7, 0.8),
    "purple": (0.6, 0.35, 0.8),
    "orange": (1.0, 0.6, 0.2),
    "gray": (0.6, 0.6, 0.6),
}

CONCEPTS = """
dog face = dog
cat face = cat
mouse face = mouse
rabbit face = rabbit / bunny
fox
bear
panda
koala
tiger face = tiger
lion
cow face = cow
pig face = pig
frog
monkey face = monkey
horse face = horse
unicorn
octopus
penguin
bird
baby chick = chick
duck
owl
snail
butterfly
honeybee = bee
lady beetle = ladybug
turtle
crab
fish
tropical fish
dolphin
spouting whale = whale
elephant
giraffe
sauropod = dinosaur
red apple = red apple / apple
green apple
pear
lemon
banana
watermelon = watermelon / slice of watermelon
grapes = *grapes
strawberry
cherries = *cherries
pineapple
tomato
avocado
carrot
mushroom
bread = *bread
cheese wedge = *cheese
hamburger = hamburger / burger
french fries = *french fries / fries
pizza = pizza / slice of pizza
hot dog
egg
soft ice cream = ice cream / ice cream cone
doughnut = donut / doughnut
cookie
birthday cake = birthday cake / cake
hot beverage = cup of coffee / coffee
beer mug = beer
automobile = red car / car
taxi
bus
fire engine = fire truck
bicycle = bicycle / bike
locomotive = train
airplane = airplane / plane
helicopter
rocket
flying saucer = flying saucer / UFO
sailboat
guitar
violin
telephone
laptop
camera
alarm clock = alarm clock / clock
light bulb
candle
blue book = blue book / book
pencil
key
umbrella
sunglasses = *sunglasses
top hat
crown
dress
running shoe = shoe / sneaker
gem stone = diamond / gem
wrapped gift = gift / present
balloon = red balloon / balloon
teddy bear
bell
trophy
robot
soccer ball
basketball
deciduous tree = tree
evergreen tree = pine tree
cactus
sunflower
rose = red rose / rose
tulip
Christmas tree
sun with face = sun
crescent moon = moon
star = star / yellow star
cloud
rainbow
snowflake
snowman without snow = snowman
fire = *fire
house
castle
grinning face = smiley / happy face
ghost
alien
skull
jack-o-lantern = pumpkin / jack-o-lantern
red heart = red heart / heart
"""

# Shown less often, so that those above are learnt well first.
MORE_CONCEPTS = """
hamster
polar bear
wolf
raccoon
chicken
dragon face = dragon
eagle
bat
spider
snake
lizard
shrimp
lobster
shark
crocodile
rhinoceros = rhino
hippopotamus = hippo
camel
zebra
gorilla
ewe = sheep
goat
deer
rooster
swan
flamingo
parrot
peacock
hedgehog
T-Rex
blueberries = *blueberries
peach
kiwi fruit = kiwi
eggplant
broccoli = *broccoli
ear of corn = *corn
hot pepper = chili pepper / hot pepper
onion
croissant
pancakes = *pancakes
sandwich
taco
cooking = fried egg
popcorn = *popcorn
sushi = *sushi
cupcake
candy
lollipop
wine glass = glass of wine
ambulance
police car
delivery truck = truck
tractor
motorcycle
ship
anchor
drum
trumpet
microphone
headphone = *headphones
mobile phone = phone / mobile phone
desktop computer = computer
television = television / TV
watch
open book
paintbrush
artist palette = palette
scissors = *scissors
locked = lock / padlock
hammer
axe
magnet
telescope
bed
chair
couch and lamp = couch / sofa
toilet
glasses = *glasses
t-shirt = t-shirt / shirt
jeans = *jeans
backpack
ring
kite
game die = die / dice
bomb
envelope = envelope / letter
baseball
american football = football
tennis = tennis racket
bullseye = dartboard / target
skateboard
palm tree
cherry blossom
maple leaf
high voltage = lightning bolt
droplet = drop of water
water wave = wave
globe showing Americas = planet earth / globe
volcano
snow-capped mountain = mountain
school
tent
ferris wheel
crying face
angry face
smiling face with heart-eyes = face with heart eyes
clown face = clown
Santa Claus
"""

# Shapes that are slow to learn are shown more often: how often, in relation to the others of their table.
INTRICATE: dict[str, float] = {"octopus": 6.0, "rocket": 2.0, "snowman without snow": 2.0}

# Objects of one colour, painted in all of HUES too ("a green car"), so that a colour word learns to belong to
# the thing it stands before and not to the background. Value: what the recoloured thing is called.
RECOLOURED: dict[str, str] = {
    "red apple": "apple",
    "automobile": "car",
    "balloon": "balloon",
    "red heart": "heart",
    "rose": "rose",
    "dress": "dress",
    "blue book": "book",
    "butterfly": "butterfly",
    "fish": "fish",
    "bird": "bird",
    "star": "star",
}

# Hue in degrees, factor on saturation, factor on value.
HUES: dict[str, tuple[float, float, float]] = {
    "red": (2.0, 1.0, 1.0),
    "orange": (28.0, 1.0, 1.05),
    "yellow": (48.0, 1.0, 1.15),
    "green": (125.0, 0.85, 0.9),
    "blue": (213.0, 0.95, 1.0),
    "purple": (275.0, 0.8, 0.95),
    "pink": (335.0, 0.5, 1.15),
}


class Wearable(NamedTuple):
    """Where an animal's head wears things, in units of its pictogram's side (0 0 = top left)."""

    eyes: tuple[float, float]  # the middle between the eyes
    gap: float  # from eye to eye
    brim: float  # how far down a hat's brim sits
    hat: float  # width of a hat


ACCESSORIES: dict[str, str] = {"sunglasses": "sunglasses", "top hat": "a top hat", "crown": "a crown"}

# Animals that look at us, by CLDR short name; measured on the pictograms.
HEADS: dict[str, Wearable] = {
    "dog face": Wearable((0.505, 0.52), 0.285, 0.20, 0.55),
    "cat face": Wearable((0.495, 0.52), 0.37, 0.26, 0.52),
    "mouse face": Wearable((0.50, 0.59), 0.27, 0.36, 0.46),
    "hamster": Wearable((0.50, 0.545), 0.30, 0.28, 0.52),
    "rabbit face": Wearable((0.50, 0.585), 0.23, 0.46, 0.46),
    "fox": Wearable((0.50, 0.56), 0.245, 0.33, 0.50),
    "bear": Wearable((0.50, 0.465), 0.325, 0.15, 0.58),
    "polar bear": Wearable((0.50, 0.375), 0.345, 0.24, 0.52),
    "panda": Wearable((0.50, 0.52), 0.35, 0.20, 0.56),
    "koala": Wearable((0.50, 0.51), 0.31, 0.25, 0.52),
    "tiger face": Wearable((0.50, 0.335), 0.35, 0.13, 0.58),
    "lion": Wearable((0.50, 0.39), 0.225, 0.17, 0.56),
    "cow face": Wearable((0.515, 0.445), 0.25, 0.24, 0.50),
    "pig face": Wearable((0.495, 0.54), 0.39, 0.22, 0.58),
    "frog": Wearable((0.50, 0.335), 0.45, 0.24, 0.52),
    "monkey face": Wearable((0.495, 0.465), 0.215, 0.20, 0.58),
    "wolf": Wearable((0.50, 0.47), 0.29, 0.20, 0.54),
    "raccoon": Wearable((0.51, 0.53), 0.24, 0.27, 0.58),
}
