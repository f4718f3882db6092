"""Pictures of the pages: `screenshots.py FOLDER`. infra/screenshots starts the shop and calls this, once without captchas, and
once with them for the page that shows one."""

import os
import sys
from pathlib import Path

from browser import BASE, PASSWORD, Api, browser, create_sale

FOLDER = Path(sys.argv[1])
LOOKS = {
    "desktop-light": {"viewport": {"width": 1100, "height": 640}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 390, "height": 720}, "color_scheme": "dark"},
    "phone-light-zh": {"viewport": {"width": 390, "height": 720}, "color_scheme": "light", "locale": "zh-CN"},
}


def photograph(chrome, tour):
    for look, options in LOOKS.items():
        context = chrome.new_context(base_url=BASE, reduced_motion="reduce", **({"locale": "en-US"} | options))
        page = context.new_page()
        tour(page, lambda name: page.screenshot(path=FOLDER / f"{name}-{look}.png"))
        context.close()


def shop():
    """The way of a buyer."""
    create_sale("Kettle", stock=50, starts_in=-5000, ends_in=-60, price=12900, original_price=25900, currency="CNY")
    soon = create_sale("Headphones", stock=20, starts_in=754, ends_in=9000, price=4900, original_price=19900)
    sale = create_sale(
        "A phone for the price of its case",
        description="One hundred units, one for each buyer.",
        stock=100,
        starts_in=-30,
        ends_in=5400,
        image_url="/assets/shop/demo.svg",
    )
    for _ in range(37):
        Api().buy(sale)

    def tour(page, keep):
        shopper = Api()
        page.goto("/")
        page.wait_for_selector("main li")
        keep("sales")
        page.goto(f"/sign-in?next=/sales/{soon}")
        page.locator("#country").select_option("US")
        page.locator("#phone").fill(shopper.phone)
        page.locator("#password").fill(PASSWORD)
        page.locator("[type=submit]").click()
        page.wait_for_selector("#buy")
        keep("sale-soon")
        page.goto(f"/sales/{sale}")
        page.wait_for_selector("#buy[aria-disabled=false]")
        keep("sale-open")
        page.locator("#buy").click()
        page.wait_for_selector("#result[data-status=confirmed]")
        keep("order")
        console(page, keep, sale)

    return tour


def console(page, keep, sale):
    """The operator's screen, some seconds into a sale."""
    page.context.clear_cookies()
    page.goto("/sign-in?next=/console")
    page.locator("#country").select_option("US")
    page.locator("#phone").fill(os.environ["SHOP_ADMIN_PHONE"])
    page.locator("#password").fill(os.environ["SHOP_ADMIN_PASSWORD"])
    page.locator("[type=submit]").click()
    page.wait_for_selector("#figures canvas")
    for number in range(12):
        if number % 3:
            Api().buy(sale)
        page.wait_for_timeout(500)
    size = page.viewport_size
    page.set_viewport_size({"width": size["width"], "height": 1000})
    keep("console")
    page.set_viewport_size(size)


def captcha():
    """The page that shows a captcha."""

    def tour(page, keep):
        page.goto("/register")
        page.wait_for_selector(".captcha img[src]")
        keep("register")

    return tour


with browser() as chrome:
    photograph(chrome, captcha() if os.environ.get("SHOP_CAPTCHAS") == "on" else shop())
