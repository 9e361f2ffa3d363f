package mediatype

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/tramo/tramo/test/stack"
)

// little16 is a text in UTF-16, as Windows writes one.
func little16(s string) string {
	out := []byte("\xFF\xFE")
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return string(out)
}

// tiff is a TIFF of little-endian entries (tag, type, value), whose first value of type 2 is the text.
func tiff(text string, entries ...[3]uint32) string {
	out := binary.LittleEndian.AppendUint16([]byte("II*\x00\x08\x00\x00\x00"), uint16(len(entries)))
	end := uint32(8 + 2 + 12*len(entries) + 4)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, uint16(e[0]))
		out = binary.LittleEndian.AppendUint16(out, uint16(e[1]))
		out = binary.LittleEndian.AppendUint32(out, 1)
		value := e[2]
		if e[1] == 2 {
			value = end
		}
		out = binary.LittleEndian.AppendUint32(out, value)
	}
	return string(out) + "\x00\x00\x00\x00" + text + "\x00"
}

const animated = "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x08\x00\x00\x00\x08\x08\x02\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x08acTL\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00"

// What sites send is accepted by the default list, under the type that its sender says and under none, and is what it is.
func TestAcceptedByDefault(t *testing.T) {
	t.Parallel()
	policy := DefaultPolicy()
	const xml = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"
	for name, c := range map[string]struct{ declared, content, want string }{
		// Kinds of what is on the list.
		"points by tab":                     {"text/plain", strings.Repeat("P1\t345201.22\t6301234.9\nP2\t345202.10\t6301235.1\n", 20), "text/tab-separated-values"},
		"points that begin with P1":         {"text/plain", strings.Repeat("P1\n6301234 345678\n6301240 345690\n", 10), "text/plain"},
		"points that begin with P2":         {"text/csv", "P2\n12 34\n5\n", "text/plain"},
		"a note that begins with Date:":     {"text/plain", "Date: 14 marzo\nFrom: obra 14\n\nllego el acero\n", "message/rfc822"},
		"vCard":                             {"text/vcard", "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ana\r\nEND:VCARD\r\n", "text/vcard"},
		"iCalendar":                         {"text/calendar", "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n", "text/calendar"},
		"subtitles":                         {"application/x-subrip", "1\n00:00:01,000 --> 00:00:04,000\nhola\n\n", "application/x-subrip"},
		"JSON":                              {"application/json", `{"obra": 14}`, "application/json"},
		"GeoJSON":                           {"text/plain", `{"type": "FeatureCollection", "features": []}`, "application/geo+json"},
		"a text of Windows":                 {"text/plain", little16("Acta de obra\r\nhormigón\r\n"), "text/plain"},
		"animated PNG":                      {"image/png", animated, "image/apng"},
		"film of brand M4V":                 {"video/mp4", isoFile("M4V ", "isom", "mp42"), "video/x-m4v"},
		"film of brand MSNV":                {"video/mp4", isoFile("MSNV", "MSNV", "mp42"), "video/mp4"},
		"film of a brand that nobody knows": {"video/mp4", isoFile("XAVC", "mp42"), "video/mp4"},
		"film of an old phone of Japan":     {"video/mp4", isoFile("KDDI", "3g2a"), "video/3gpp2"},
		"film, by another name":             {"application/mp4", isoFile("isom", "mp42"), "video/mp4"},
		"EPUB":                              {"application/zip", "PK\x03\x04\x0A\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 8) + "\x14\x00\x00\x00\x14\x00\x00\x00\x08\x00\x00\x00mimetypeapplication/epub+zip", "application/epub+zip"},
		"XML":                               {"text/xml", xml + "<presupuesto/>", "text/xml"},
		// What the list lacked.
		"DXF":                      {"application/dxf", "  0\r\nSECTION\r\n  2\r\nHEADER\r\n", dxfType},
		"DXF with a comment":       {"image/vnd.dxf", "999\nLibreCAD\n  0\nSECTION\n", dxfType},
		"DXF, binary":              {"", "AutoCAD Binary DXF\r\n\x1A\x00\x00\x00SECTION\x00", dxfType},
		"IFC":                      {"application/x-step", "ISO-10303-21;\nHEADER;\nFILE_DESCRIPTION(('x'),'2;1');\nFILE_SCHEMA(('IFC2X3'));\n", ifcType},
		"STEP of a steel workshop": {"model/step", "ISO-10303-21;\nHEADER;\nFILE_SCHEMA(('AUTOMOTIVE_DESIGN'));\n", stepType},
		"KML":                      {kmlType, xml + `<kml xmlns="http://www.opengis.net/kml/2.2">`, kmlType},
		"KML without a prolog":     {"", "<!-- obra --><kml>", kmlType},
		"GPX":                      {gpxType, xml + `<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">`, gpxType},
		"GPX 1.0":                  {gpxType, xml + `<gpx version="1.0" creator="Garmin">`, gpxType},
		"RTF":                      {"application/rtf", `{\rtf1\ansi hola}`, "text/rtf"},
		"voice note of an iPhone":  {"audio/x-m4a", isoFile("M4A ", "M4A ", "mp42"), "audio/mp4"},
		"voice note of an Android": {"audio/mp4", isoFile("mp42", "isom", "mp42"), "video/mp4"},
		"AAC":                      {"audio/x-aac", "\xFF\xF1\x50\x80\x02\x1F\xFC", "audio/aac"},
		"Opus":                     {"audio/ogg; codecs=opus", "OggS\x00\x02" + strings.Repeat("\x00", 20) + "\x01\x13OpusHead\x01\x01\x38\x01", "audio/ogg"},
		"AMR":                      {"audio/amr", "#!AMR\n\x3c\x91\x17", "audio/amr"},
		"WAV":                      {"audio/x-wav", "RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav"},
		"MP3":                      {"audio/mp3", "ID3\x04\x00\x00\x00\x00\x00\x23TSSE\x00\x00\x00\x0f\x00\x00\x03Lavf60.16.100\x00" + "\xFF\xFB\x90\x64", "audio/mpeg"},
		"SketchUp":                 {"application/vnd.koan", "\xFF\xFE\xFF\x0E" + little16("SketchUp Model")[2:] + "\xFF\xFE\xFF", skpType},
		"BMP":                      {"image/x-ms-bmp", "BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x01\x00\x18\x00", "image/bmp"},
		"JPEG XL":                  {"image/jxl", "\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a", "image/jxl"},
		"CR2":                      {"image/x-canon-cr2", "II*\x00\x10\x00\x00\x00CR\x02\x00" + strings.Repeat("\x00", 16), "image/x-canon-cr2"},
		"CR3":                      {"", isoFile("crx ", "crx ", "isom"), "image/x-canon-cr3"},
		"NEF":                      {"", tiff("NIKON CORPORATION", [3]uint32{0xFE, 4, 1}, [3]uint32{0x10F, 2}, [3]uint32{0x14A, 4, 99}), "image/x-nikon-nef"},
		"ARW":                      {"image/x-sony-arw", tiff("SONY", [3]uint32{0xFE, 4, 1}, [3]uint32{0x10F, 2}, [3]uint32{0x14A, 4, 99}), "image/x-sony-arw"},
		"PEF":                      {"", tiff("PENTAX Corporation", [3]uint32{0x103, 3, 65535}, [3]uint32{0x10F, 2}), "image/x-pentax-pef"},
		"a TIFF of a Nikon":        {"image/tiff", tiff("NIKON CORPORATION", [3]uint32{0xFE, 4, 0}, [3]uint32{0x10F, 2}), "image/tiff"},
		"RAF":                      {"", "FUJIFILMCCD-RAW 0201", "image/x-fuji-raf"},
		"ORF":                      {"", "IIRO\x08\x00\x00\x00", "image/x-olympus-orf"},
		"RW2":                      {"image/x-panasonic-rw2", "IIU\x00\x18\x00\x00\x00", "image/x-panasonic-rw2"},
	} {
		got := Detect([]byte(c.content))
		if got != c.want || !policy.Allows(got) || Mismatch(c.declared, got) {
			t.Errorf("%s: %s, want %s; accepted %t, mismatch with %s %t", name, got, c.want, policy.Allows(got), c.declared, Mismatch(c.declared, got))
		}
		if c.declared != "" && !policy.Allows(c.declared) {
			t.Errorf("%s: %s is not accepted before its bytes come", name, c.declared)
		}
	}
	for _, mediaType := range []string{
		"application/vnd.ms-project", "application/vnd.autodesk.revit", kmzType, "application/vnd.oasis.opendocument.spreadsheet",
		"application/vnd.oasis.opendocument.presentation", "application/vnd.ms-powerpoint", "application/vnd.ms-excel.sheet.macroenabled.12", EncryptedOffice,
	} {
		if !policy.Allows(mediaType) {
			t.Errorf("%s is not accepted", mediaType)
		}
	}
}

// What runs is accepted only by its name, whatever it is a kind of, and whoever calls it a text.
func TestWhatRunsIsRefused(t *testing.T) {
	t.Parallel()
	everything, err := ParsePolicy("*/*,text/*,application/*,text/plain,application/zip")
	stack.Must(t, err)
	for name, content := range map[string]string{
		"shell":                      "#!/bin/sh\nrm -rf /\n",
		"shell of another kind":      "#!/usr/bin/env fish\n",
		"interpreter that is rare":   "#! /usr/bin/awk -f\n",
		"python":                     "#!/usr/bin/env python3\n",
		"batch":                      strings.Repeat("@echo off\r\necho hi\r\n", 10),
		"batch behind a mark":        "\xEF\xBB\xBF\r\n@ECHO OFF\r\n",
		"batch that does not say it": "@setlocal enabledelayedexpansion\r\n",
		"shortcut to the web":        "[InternetShortcut]\r\nURL=file://x\r\n",
		"shortcut of a desktop":      "[Desktop Entry]\nExec=sh\n",
		"registry":                   little16("Windows Registry Editor Version 5.00\r\n"),
		"registry of old":            "REGEDIT4\r\n",
		"script of Windows":          "On Error Resume Next\r\nSet s = CreateObject(\"WScript.Shell\")\r\n",
		"PowerShell":                 "#Requires -Version 5\n",
		"page":                       "<!DOCTYPE html><script>alert(1)</script>",
		"page of Windows":            little16("<html><script>alert(1)</script>"),
		"drawing with scripts":       `<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>`,
		"PHP":                        "<?php system($_GET[0]);",
		"program of Windows":         "MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xFF\xFF" + strings.Repeat("\x00", 64),
		"program of Linux":           "\x7FELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x03\x00",
		"program of macOS":           "\xCF\xFA\xED\xFE\x07\x00\x00\x01",
	} {
		got := Detect([]byte(content))
		if !Runs(got) || everything.Allows(got) {
			t.Errorf("%s: %s is accepted", name, got)
		}
		if named := (Policy{Allowed: Types{got}}); !named.Allows(got) {
			t.Errorf("%s: %s is not accepted by its name", name, got)
		}
	}
	for _, text := range []string{"# Acta de obra\n", "#1 hormigón\n", "!/bin/sh\n", "echo de la montaña\n", "Date: hoy\n", "[Obra 14]\nfecha=hoy\n", "Option 1: acero\n"} {
		if got := Detect([]byte(text)); Runs(got) || !DefaultPolicy().Allows(got) {
			t.Errorf("%q: %s is refused", text, got)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for mediaType, want := range map[string][]string{
		"text/plain":               {"text/plain"},
		"application/json":         {"application/json", "text/plain"},
		kmlType:                    {kmlType, "text/xml", "text/plain"},
		"image/apng":               {"image/apng", "image/png"},
		"video/x-m4v":              {"video/x-m4v", "video/mp4"},
		"image/heic":               {"image/heic", "image/heif"}, // and no film
		"image/avif":               {"image/avif"},
		"image/x-adobe-dng":        {"image/x-adobe-dng", "image/tiff"},
		"application/java-archive": {"application/java-archive", "application/zip"},
		"application/msword":       {"application/msword", "application/x-ole-storage"},
		Unknown:                    {Unknown},
		"nonsense":                 {"nonsense"},
	} {
		if got := Kinds(mediaType); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", mediaType, got, want)
		}
	}
}
