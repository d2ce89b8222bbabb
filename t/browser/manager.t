#!/usr/bin/perl
# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# The manager's page with script, in headless Chromium (build-aux/install-deps browser). Not one of
# ./check's tests:
#
#   prove -It/lib t/browser/manager.t
#
# With RPROXY_SCREENSHOTS=DIRECTORY it writes those of docs/images there.
use FindBin;
use lib "$FindBin::Bin/../lib";
use RProxy::Test;
use RProxy::Browser;

my $shots = $ENV{RPROXY_SCREENSHOTS};
my $hostile = $shots ? 'unix:/run/app.sock|http://localhost'
    : q{unix:/run/<img/src=x/onerror=alert(1)>"'.sock|http://localhost};

# A member's row, by its URL.
my $row = q{(url => [...document.querySelectorAll("tr[data-member]")]
    .find(row => row.querySelector("a").textContent === url))};

# Texts whose contrast is below what WCAG wants (AA: 4.5, large ones 3).
my $faint = <<'SCRIPT';
(() => {
    const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = parse(getComputedStyle(element).backgroundColor);
            if (colour.length === 3 || colour[3] === 1)
                return colour;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility())
            continue;
        const one = light(parse(getComputedStyle(element).color)), two = light(behind(element));
        const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        if (contrast < 4.5)
            found.push(`${element.tagName} ${walker.currentNode.data.trim()} ${contrast}`);
    }
    return found.join("\n");
})()
SCRIPT

sub set_up {
    my ($t, $changes) = @_;
    my @up = map { $t->upstream->reply_with(200, [], 'x') } 1 .. 4;
    $t->server_config('<Location /manager>', 'SetHandler rproxy-manager',
        "RProxyManager changes=$changes", '</Location>', 'RProxyZone east',
        '<RProxyBalancer app>', 'RProxyMember ' . $up[0]->url . ' weight=3 zone=east route=a',
        'RProxyMember ' . $up[1]->url . ' max=20 zone=east route=b',
        'RProxyMember ' . $up[2]->url . ' backup route=c', 'RProxyQueue max=50 timeout=3s',
        'RProxyMethod leasttime', 'RProxySticky cookie=SRV', '</RProxyBalancer>',
        '<RProxyBalancer static>', 'RProxyMember ' . $up[3]->url,
        'RProxyMember "' . $hostile =~ s/"/\\"/r . '" state=down', 'RProxyMethod first',
        '</RProxyBalancer>',
        'RProxyPass /static balancer://static/', 'RProxyPass / balancer://app/');
    $t->start;
    return map { $_->url } @up;
}

sub start_browser {
    my ($t) = @_;
    my $browser = RProxy::Browser->new;
    $browser->viewport(1280, 800);
    $browser->colours('light');
    $browser->open('http://' . '127.0.0.1:' . $t->port . '/manager/');
    $browser->wait_for('document.getElementById("live").textContent === "Live."');
    return $browser;
}

sub is_clean {
    my ($browser) = @_;
    is(join("\n", $browser->problems), '', 'no errors, nothing refused');
    return;
}

behaviour 'numbers come by themselves, in the same rows', lanes => ['event'], sub {
    my ($t) = @_;
    my @url = set_up($t, 'on');
    my $browser = start_browser($t);
    $browser->value("($row('$url[0]') || $row('$url[1]')).isMarked = true");
    is($t->get('/')->status, 200, 'traffic') for 1 .. 20;
    $browser->wait_for(q{[...document.querySelectorAll('#pool-app [data-key="traffic.requests"]')]
        .some(element => element.textContent === "20")});
    ok($browser->value("$row('$url[0]').isMarked"), 'the row is the one it was');
    $browser->wait_for(q{document.querySelector('#pool-app [data-chart="rate"] path')
        .getAttribute("d").includes("L")});
    pass('a chart');

    $browser->value(q{window.seen = 0; const old = window.fetch;
        window.fetch = (...all) => { window.seen++; return old(...all); };
        Object.defineProperty(document, "hidden", { get: () => window.isAway, configurable: true });
        window.isAway = true; document.dispatchEvent(new Event("visibilitychange"))});
    is($browser->value(q{(async () => { const wait = () => new Promise(go => setTimeout(go, 3000));
        await wait(); const before = window.seen; await wait(); return window.seen - before; })()}), 0,
        'rests while nobody looks');
    $browser->value('window.isAway = false;
        document.dispatchEvent(new Event("visibilitychange"))');
    $browser->wait_for('window.seen > 0');
    is_clean($browser);
    $t->stop;
    $browser->wait_for('document.getElementById("live").classList.contains("late")');
    like($browser->value('document.getElementById("live").textContent'), qr/Not up to date/,
        'says that it is not up to date');
};

behaviour 'changes by keyboard, in a dialog', lanes => ['event'], sub {
    my ($t) = @_;
    my @url = set_up($t, 'on');
    my $browser = start_browser($t);
    $browser->value("$row('$url[0]').querySelector('a.button').focus()");
    $browser->press('Enter');
    $browser->wait_for('document.querySelector("dialog[open] #actions")');
    is($browser->value('document.querySelector("dialog h1").textContent'), $url[0], 'of the member');
    $browser->press('Escape');
    $browser->wait_for('!document.querySelector("dialog[open]")');
    ok($browser->value("document.activeElement === $row('$url[0]').querySelector('a.button')"),
        'Escape leads back to where it was');
    $browser->press('Enter');
    $browser->wait_for('document.querySelector("dialog[open] #actions")');
    $browser->value(q{document.querySelector('dialog button[value="drain"]').focus()});
    $browser->press('Enter');
    $browser->wait_for('document.querySelector("dialog[open] #confirm")');
    like($browser->value('document.querySelector("#confirm").textContent'),
        qr/state: from up to drain/, 'the question');
    is($browser->value('document.activeElement.textContent'), 'Cancel', 'nothing by accident');
    $browser->screenshot("$shots/manager-question.png") if $shots;
    $browser->value('document.querySelector("dialog .yes").focus()');
    $browser->press('Enter');
    $browser->wait_for("$row('$url[0]').dataset.state === 'drain'");
    ok($browser->value('!document.querySelector("dialog[open]")'), 'the dialog is closed');
    like($browser->value('document.getElementById("message").textContent'), qr/Done.*drain/, 'done');
    like($browser->value('document.getElementById("news").textContent'), qr/Done/, 'and said');
    is($browser->value('location.pathname'), '/manager/', 'on the same page');

    # A member that comes from elsewhere.
    $browser->value(q{(async () => {
        const page = async (body) => new DOMParser().parseFromString(await (await fetch("change",
            { method: "POST", body })).text(), "text/html");
        const first = new FormData(document.querySelector("#pool-app .add form"));
        first.set("url", "http://127.0.0.9:99");
        const form = (await page(new URLSearchParams(first))).querySelector("#confirm form");
        const second = new URLSearchParams(new FormData(form));
        second.set("yes", "1");
        await page(second);
    })()});
    $browser->wait_for("$row('http://127.0.0.9:99')");
    pass('comes by itself');
    is_clean($browser);
};

behaviour 'filters as one types', lanes => ['event'], sub {
    my ($t) = @_;
    my @url = set_up($t, 'on');
    my $browser = start_browser($t);
    my $shown = q{[...document.querySelectorAll("tr[data-member]")]
        .filter(row => row.checkVisibility()).length};
    is($browser->value($shown), 5, 'all');
    $browser->value('document.querySelector("#filter input").focus()');
    $browser->type('route b');
    $browser->wait_for("$shown === 1");
    $browser->value('document.querySelector("#filter input").select()');
    $browser->type('unix:');
    $browser->wait_for("$shown === 1");
    ok($browser->value('!document.querySelector("#pools img")'), 'a hostile name is a name');
    $browser->value('document.querySelector("#filter input").select()');
    $browser->type('nothing');
    $browser->wait_for("$shown === 0 && document.getElementById('none').checkVisibility()");
    $browser->open('http://127.0.0.1:' . $t->port . '/manager/?state=down');
    $browser->wait_for("$shown === 1 && document.querySelectorAll('tr[data-member]').length === 5");
    pass('one that the server has filtered knows the others, too');
    is_clean($browser);
};

behaviour 'looks well in all widths and colours', lanes => ['event'], sub {
    my ($t) = @_;
    my @url = set_up($t, 'on');
    my $browser = start_browser($t);
    for (1 .. ($shots ? 20 : 3)) {
        is($t->get('/')->status, 200, 'traffic') for 1 .. 3 + $_ * $_ % 7;
        my $count = $browser->value('series.get("app").rates.length');
        $browser->wait_for("series.get('app').rates.length > $count");
    }
    for (['light', 1180, 760], ['dark', 1180, 760], ['light', 360, 900], ['dark', 360, 900]) {
        my ($scheme, $width, $height) = @$_;
        $browser->colours($scheme);
        $browser->viewport($width, $height);
        $browser->value('new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))');
        is($browser->value($faint), '', "contrast, $scheme, $width px");
        cmp_ok($browser->value('document.documentElement.scrollWidth'), '<=', $width, 'fits');
        is($browser->value('[...document.querySelectorAll(".scroll")]
            .filter(element => element.scrollWidth > element.clientWidth).length'), 0, 'tables too');
        my $name = $width < 1000 ? "narrow-$scheme" : $scheme;
        $browser->value('document.activeElement.blur()');
        $browser->screenshot("$shots/manager-$name.png") if $shots;
        $browser->value("$row('$url[0]').querySelector('a').focus()");
        $browser->press('Tab');
        isnt($browser->value('getComputedStyle(document.activeElement).outlineStyle'), 'none',
            'one sees where the focus is');
        $browser->value("$row('$url[0]').querySelector('a').focus()");
        $browser->press('Enter');
        $browser->wait_for('document.querySelector("dialog[open] #actions")');
        is($browser->value($faint), '', 'contrast in the dialog');
        cmp_ok($browser->value('document.querySelector("dialog").scrollWidth'), '<=', $width, 'fits');
        $browser->press('Escape');
    }
    is_clean($browser);
};

behaviour 'who may only look has no forms', lanes => ['event'], sub {
    my ($t) = @_;
    my @url = set_up($t, 'off');
    my $browser = start_browser($t);
    is($browser->value(q{document.querySelectorAll('form[method="post"], .do').length}), 0, 'none');
    $browser->value("$row('$url[0]').querySelector('a').click()");
    $browser->wait_for('document.querySelector("dialog[open] #member")');
    is($browser->value('document.querySelectorAll("dialog form").length'), 0, 'nor in the dialog');
    is_clean($browser);
};

done_testing;
