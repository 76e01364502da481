"""What the embedded model knows: about 230 well-known things, each by its pictogram and the words for it.

Only data, meant to be read and edited. A line of `CONCEPTS` is

    <CLDR short name of the emoji> = <word> / <another word for the same>

The part after `=` is left out where the short name already is what one would say. A `*` before the words
marks those that take no "a" (grapes, fire).
"""

from __future__ import annotations

__all__ = ["ACCESSORIES", "BACKGROUNDS", "CONCEPTS", "HEADS", "HUES", "RECOLOURED", "Wearable"]

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
hamster
rabbit face = rabbit / bunny
fox
bear
polar bear
panda
koala
tiger face = tiger
lion
cow face = cow
pig face = pig
frog
monkey face = monkey
wolf
raccoon
chicken
horse face = horse
unicorn
dragon face = dragon
octopus
penguin
bird
baby chick = chick
duck
eagle
owl
bat
snail
butterfly
honeybee = bee
lady beetle = ladybug
spider
turtle
snake
lizard
shrimp
crab
lobster
fish
tropical fish
dolphin
spouting whale = whale
shark
crocodile
elephant
rhinoceros = rhino
hippopotamus = hippo
camel
giraffe
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
sauropod = dinosaur
T-Rex
red apple = red apple / apple
green apple
pear
lemon
banana
watermelon = watermelon / slice of watermelon
grapes = *grapes
strawberry
blueberries = *blueberries
cherries = *cherries
peach
pineapple
kiwi fruit = kiwi
tomato
eggplant
avocado
broccoli = *broccoli
carrot
ear of corn = *corn
hot pepper = chili pepper / hot pepper
onion
mushroom
bread = *bread
croissant
pancakes = *pancakes
cheese wedge = *cheese
hamburger = hamburger / burger
french fries = *french fries / fries
pizza = pizza / slice of pizza
hot dog
sandwich
taco
egg
cooking = fried egg
popcorn = *popcorn
sushi = *sushi
soft ice cream = ice cream / ice cream cone
doughnut = donut / doughnut
cookie
birthday cake = birthday cake / cake
cupcake
candy
lollipop
hot beverage = cup of coffee / coffee
wine glass = glass of wine
beer mug = beer
automobile = red car / car
taxi
bus
ambulance
fire engine = fire truck
police car
delivery truck = truck
tractor
bicycle = bicycle / bike
motorcycle
locomotive = train
airplane = airplane / plane
helicopter
rocket
flying saucer = flying saucer / UFO
sailboat
ship
anchor
guitar
violin
drum
trumpet
microphone
headphone = *headphones
telephone
mobile phone = phone / mobile phone
laptop
desktop computer = computer
camera
television = television / TV
alarm clock = alarm clock / clock
watch
light bulb
candle
open book
blue book = blue book / book
pencil
paintbrush
artist palette = palette
scissors = *scissors
key
locked = lock / padlock
hammer
axe
magnet
telescope
bed
chair
couch and lamp = couch / sofa
toilet
umbrella
glasses = *glasses
sunglasses = *sunglasses
top hat
crown
t-shirt = t-shirt / shirt
jeans = *jeans
dress
running shoe = shoe / sneaker
backpack
ring
gem stone = diamond / gem
wrapped gift = gift / present
balloon = red balloon / balloon
teddy bear
kite
bell
trophy
game die = die / dice
robot
bomb
envelope = envelope / letter
soccer ball
basketball
baseball
american football = football
tennis = tennis racket
bullseye = dartboard / target
skateboard
deciduous tree = tree
evergreen tree = pine tree
palm tree
cactus
sunflower
rose = red rose / rose
tulip
cherry blossom
maple leaf
Christmas tree
sun with face = sun
crescent moon = moon
star = star / yellow star
cloud
rainbow
high voltage = lightning bolt
snowflake
snowman without snow = snowman
fire = *fire
droplet = drop of water
water wave = wave
globe showing Americas = planet earth / globe
volcano
snow-capped mountain = mountain
house
castle
school
tent
ferris wheel
grinning face = smiley / happy face
crying face
angry face
smiling face with heart-eyes = face with heart eyes
ghost
alien
skull
jack-o-lantern = pumpkin / jack-o-lantern
clown face = clown
Santa Claus
red heart = red heart / heart
"""

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
